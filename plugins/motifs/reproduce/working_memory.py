"""The working memory of arXiv 2604.14096: exact recall, training, sweeps, robustness, and ten times the size.

    python plugins/motifs/reproduce/working_memory.py [--parts headline training ...] [--full]

The default is a reduction: fewer seeds, a shorter sweep over T, and four instead of ten times the size (about five CPU
minutes on one thread). ``--full`` runs everything. Finished results are recorded and not run again. The training
published for this, from the paper's own start, is ``bptt.py``.
Times are process CPU seconds on one thread after a warm-up of the compiled kernels.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from time import process_time
from typing import Any

import torch
from tqdm import tqdm

import delaykit_motifs as motifs
from delaykit import plotting
from delaykit_lab import command_line, read_options, record_path, remembered
from delaykit_motifs import MotifMemory, Setting

HEADLINE = Setting(neurons=512, time=1000, patterns=16, depth=41, rate=1e-3, theta=0.95)
SMALL = Setting(neurons=128, time=300, patterns=4, depth=21, rate=5e-3, theta=0.7)
SWEPT = Setting(neurons=256, time=500, patterns=8, depth=41, rate=2e-3, theta=0.65)
SWEEPS: dict[str, tuple[str, tuple[Any, ...], bool]] = {
    "depth": ("delays D (steps)", (3, 7, 11, 15, 21, 41, 81), False),
    "time": ("length of a pattern T (steps)", (64, 128, 256, 512, 1024, 2048), True),
    "rate": ("rate p_A (spikes a neuron and step)", (1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2), True),
    "patterns": ("patterns M", (1, 2, 4, 8, 16, 32, 64), True),
    "neurons": ("neurons N", (32, 64, 128, 256, 512), True),
    "theta": ("threshold theta", (0.35, 0.5, 0.65, 0.8, 0.95, 1.1), False),
}
NOISES = {
    "flip": (0.0, 0.1, 0.25, 0.4, 0.5),
    "truncate": (1.0, 0.9, 0.75, 0.6, 0.5),
    "background": (0.0, 3e-4, 1e-3, 3e-3),
    "silence": (0.0, 0.02, 0.05, 0.1, 0.2),
}
WHAT = {
    "flip": "share of cue spikes moved",
    "truncate": "share of cue kept",
    "background": "rate",
    "silence": "share of neurons",
}


class Results:
    """Records in a folder; what is there is not computed again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def once(
        self, what: str, compute: Callable[[], dict[str, Any]], setting: Setting, seed: int = 0, **more: Any
    ) -> dict[str, Any]:
        """Return a record, computed and saved if it is new.

        Args:
            what: part of the experiment, begins the file's name.
            compute: makes the result.
            setting: of the memory.
            seed: of its patterns, or of the noise.
            more: what else makes the result.
        """
        settings = {"what": what, "setting": dataclasses.asdict(setting), "seed": seed, **more}
        name = "_".join([what, *(f"{key}_{value}" for key, value in more.items()), str(seed)]).replace(" ", "_")
        record = remembered(record_path(self.folder, settings, name), settings, compute)
        print(f"{name}: {json.dumps(record)}")
        return record


def megabytes() -> float:
    """Largest memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def record(setting: Setting, seed: int, steps: int = 0) -> dict[str, Any]:
    """Write, train by teacher forcing for at most ``steps`` steps, recall everything."""
    trained = []

    def train(memory: MotifMemory, patterns: torch.Tensor) -> None:
        bar = tqdm(total=steps, desc="teacher forcing", leave=False, disable=None)

        def watch(step: int, loss: float) -> None:
            bar.set_postfix(loss=f"{loss:.1e}")
            bar.update(step > 0)

        trained.append(motifs.train_teacher_forced(memory, patterns, steps=steps, watch=watch))
        bar.close()

    (point,) = motifs.sweep(setting, "rate", (setting.rate,), (seed,), train if steps else None)
    more = {"steps": trained[0].steps, "loss": trained[0].losses[-1]} if trained else {}
    return {**point.to_json(), **more, "peak_mb": round(megabytes())}


def headline(results: Results, full: bool) -> None:
    """N 512, M 16, T 1000, D 41: without training at p_A 1e-3, trained at 2e-3."""
    for seed in range(5):
        results.once("headline", lambda seed=seed: record(HEADLINE, seed), HEADLINE, seed, steps=0)
    busy = dataclasses.replace(HEADLINE, rate=2e-3, beta=0.8)
    for seed in range(5 if full else 1):
        for steps in (0, 60):
            run = lambda seed=seed, steps=steps: record(busy, seed, steps)  # noqa: E731
            results.once("busy", run, busy, seed, steps=steps)


def training(results: Results, full: bool) -> None:
    """N 128, T 300, M 4, D 21 from random taps and from Hebb: teacher forcing and back-propagation in time."""
    patterns = SMALL.draw(0)
    taps = torch.randn(128, 128, 21, generator=torch.Generator().manual_seed(1)) * 0.02
    starts = {"random": taps, "hebb": SMALL.write(patterns).taps}
    methods = {
        "teacher forcing": (motifs.train_teacher_forced, 100),
        "free running": (motifs.train_free_running, 200 if full else 40),
    }
    for start, given in starts.items():
        for method, (train, steps) in methods.items():

            def run(given: torch.Tensor = given, train: Any = train, steps: int = steps) -> dict[str, Any]:
                memory = MotifMemory(given, SMALL.dynamics)
                before = motifs.recall_score(memory, patterns)
                report = train(memory, patterns, steps=steps)
                after = motifs.recall_score(memory, patterns)
                return {"before": before, "after": after, "steps": report.steps, "cpu_s": round(report.seconds, 2)}

            results.once("training", run, SMALL, method=method, start=start, steps=steps)
    emerging(results.folder)


def emerging(folder: Path) -> None:
    """Recall emerges near the cue and moves forward: F1 over time while teacher forcing goes on."""
    patterns, runs = SMALL.draw(0), {}
    taps = torch.randn(128, 128, 21, generator=torch.Generator().manual_seed(1)) * 0.02
    memory, done = MotifMemory(taps, SMALL.dynamics), 0
    for steps in (5, 8, 10, 30):  # a fresh Adam a piece: only the order in time matters here
        motifs.train_teacher_forced(memory, patterns, steps=steps - done)
        done = steps
        runs[f"{steps} steps"] = (memory.recall(patterns[:21], 300).spikes, patterns)
    with plotting.style():
        ax = motifs.plot_f1_over_time(runs, 21, width=25)
        ax.set_title("teacher forcing from random taps")
        ax.figure.savefig(folder / "emerging.png")


def sweeps(results: Results, full: bool) -> None:
    """One setting varied at a time, by Hebb's rule and by ridge regression, without training."""
    import matplotlib.pyplot as plt

    with plotting.style():
        figure, axes = plt.subplots(2, 3, figsize=(13, 6.4))
        for ax, (field, (label, values, log)) in zip(axes.flat, SWEEPS.items(), strict=True):
            runs: dict[str, list[motifs.Point]] = {"hebb": [], "ridge": []}
            shown = values if full or field not in ("time", "patterns") else values[:-1]
            for rule, value in tqdm([(r, v) for r in runs for v in shown], desc=field, leave=False, disable=None):
                for seed in range(3 if full and rule == "hebb" else 1):
                    setting = dataclasses.replace(SWEPT, rule=rule, **{field: value})
                    run = lambda s=setting, k=seed: record(s, k)  # noqa: E731
                    found = results.once(f"sweep_{field}", run, setting, seed, rule=rule, value=value)
                    scores = (found[k] for k in ("f1", "worst", "build_s", "recall_s"))
                    runs[rule].append(motifs.Point(value, seed, *scores))
            motifs.plot_sweep(runs, ax, label=label, log=log)
        figure.savefig(results.folder / "sweeps.png")
    # The best rate depends on the size: what counts are the N D p_A spikes of a context.
    for neurons in (256, 1024) if full else ():
        for rate in (1e-4, 3e-4, 1e-3, 3e-3):
            setting = dataclasses.replace(SWEPT, neurons=neurons, rate=rate)
            results.once("context", lambda s=setting: record(s, 0), setting, neurons=neurons, rate=rate)


def robustness(results: Results, full: bool) -> None:
    """Wrong and short cues, background spikes, silent neurons, at the headline's size: written down, and trained.

    At theta 0.95 two missing spikes of twenty are too many; at 0.65, where clean cues do as well, six are not.
    """
    import matplotlib.pyplot as plt

    setting = dataclasses.replace(HEADLINE, theta=0.65)
    patterns = setting.draw(0)

    @functools.cache
    def memory(steps: int) -> MotifMemory:
        made = setting.write(patterns)
        if steps:
            motifs.train_teacher_forced(made, patterns, steps=steps)
        return made

    with plotting.style():
        figure, axes = plt.subplots(1, 4, figsize=(13, 3.2), sharey=True)
        for ax, (noise, levels) in zip(axes, NOISES.items(), strict=True):
            points: dict[str, list[motifs.Point]] = {"hebb": [], "+ teacher forcing": []}
            for (name, found), steps in zip(points.items(), (0, 60), strict=True):
                for level, seed in [(level, seed) for level in levels for seed in range(5 if full else 2)]:

                    def run(noise: str = noise, level: float = level, seed: int = seed, n: int = steps) -> Any:
                        generator = torch.Generator().manual_seed(seed)
                        return {"f1": motifs.robustness(memory(n), patterns, noise, level, generator)}

                    what = "robustness" if name == "hebb" else "robustness_trained"
                    score = results.once(what, run, setting, seed, noise=noise, level=level)["f1"]
                    found.append(motifs.Point(level, seed, score, score, 0.0, 0.0))
            motifs.plot_sweep(points, ax, label=f"{noise} ({WHAT[noise]})")
        figure.savefig(results.folder / "robustness.png")


def capacity(results: Results, full: bool) -> None:
    """More and more patterns: written down, and after teacher forcing."""
    import matplotlib.pyplot as plt

    points: dict[str, list[motifs.Point]] = {"hebb": [], "+ teacher forcing": []}
    for found, steps in zip(points.values(), (0, 100), strict=True):
        for count in (8, 16, 32, 64) if full else (8, 16, 32):
            setting = dataclasses.replace(SWEPT, patterns=count)
            run = lambda s=setting, n=steps: record(s, 0, n)  # noqa: E731
            one = results.once("capacity", run, setting, 0, patterns=count, steps=steps)
            found.append(motifs.Point(count, 0, *(one[k] for k in ("f1", "worst", "build_s", "recall_s"))))
    with plotting.style():
        ax = plt.subplots(figsize=(6.4, 3.8))[1]
        motifs.plot_sweep(points, ax, label="patterns M", log=True)
        ax.figure.savefig(results.folder / "capacity.png")


def scale(results: Results, full: bool) -> None:
    """Ten times the size: N 2048, M 64, T 2000."""
    sizes = [(1024, 32, 1000)] + ([(2048, 64, 2000)] if full else [])
    for neurons, count, time in sizes:
        setting = dataclasses.replace(HEADLINE, neurons=neurons, patterns=count, time=time)
        for rate in (1e-3, 5e-4):
            given = dataclasses.replace(setting, rate=rate)
            results.once("scale", lambda s=given: record(s, 0), given, neurons=neurons, rate=rate)


PARTS = {
    "headline": headline, "training": training, "sweeps": sweeps, "robustness": robustness, "capacity": capacity,
    "scale": scale,
}  # fmt: skip


def main() -> None:
    """Run the parts asked for."""
    parser = command_line(__doc__, out="runs/motifs_working_memory", full="all seeds and sizes")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    options = read_options(parser)
    torch.set_num_threads(1)
    record(Setting(neurons=32, time=100, patterns=1), 0, steps=1)  # compile
    results, start = Results(options.out), process_time()
    print("full configuration" if options.full else "REDUCED configuration (see --full)", file=sys.stderr)
    for part in options.parts:
        PARTS[part](results, options.full)
    print(f"{process_time() - start:.0f} s CPU, peak {megabytes():.0f} MB")


if __name__ == "__main__":
    main()
