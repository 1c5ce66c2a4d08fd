"""The training of arXiv 2604.14096: back-propagation in time through the network's own spikes, from a Hebbian start.

    python plugins/motifs/reproduce/bptt.py            # a labelled reduction: N 128, M 4, T 300, D 21; a minute a start
    python plugins/motifs/reproduce/bptt.py --full     # N 512, M 16, T 1000, D 41; about half a minute a step

Loss: 1 minus the mean F1 of the patterns. Starts: Hebb's rule with the normaliser ``published`` (N D p_A M), ``mean``
(N D p_A, the mean context), or ``context``, ours, each context by its own number of spikes. Adam 1e-3, gradients cut
at norm 1, surrogate slope 15; the abstract names none of these. F1 in bins of 50 steps, before, on the way and after,
shows whether recall begins at the clamped window and moves forward. Every finished run is recorded and not repeated, an
interrupted one goes on. No test set: the patterns are what is to be remembered.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch

import delaykit_motifs as motifs
from delaykit import plotting
from delaykit_lab import Resumable, command_line, read_options, record_path, remembered
from delaykit_motifs import MotifMemory, Setting
from delaykit_motifs.training import f1_loss, free_running_spikes

FULL = Setting(neurons=512, time=1000, patterns=16, depth=41, rate=1e-3, theta=0.65)
SMALL = Setting(neurons=128, time=300, patterns=4, depth=21, rate=5e-3, theta=0.7)
STARTS = ("published", "mean", "context")
BIN = 50  # steps


@dataclasses.dataclass(frozen=True)
class Run:
    """One training.

    Args:
        memory: sizes, and the normaliser of the start.
        steps: of the optimizer.
        lr: Adam's rate.
        clip: largest norm of the gradient.
        slope: of the surrogate.
    """

    memory: Setting
    steps: int
    lr: float = 1e-3
    clip: float = 1.0
    slope: float = 15.0
    seed: int = 0

    def name(self) -> str:
        """Name for files and progress bars."""
        m = self.memory
        return f"{m.normalise}_N{m.neurons}_M{m.patterns}_T{m.time}_theta{m.theta:g}_{self.steps}_{self.seed}"


def over_time(memory: MotifMemory, patterns: torch.Tensor) -> list[float | None]:
    """Return F1 in bins of time, None where nothing fires and nothing should."""
    found = memory.recall(patterns[: memory.depth], len(patterns)).spikes
    _, scores = motifs.f1_over_time(found, patterns, memory.depth, BIN)
    return [None if score != score else round(float(score), 4) for score in scores]


def score(memory: MotifMemory, patterns: torch.Tensor) -> float:
    """Return the mean F1 of the patterns in free recall."""
    found = memory.recall(patterns[: memory.depth], len(patterns)).spikes
    return float(motifs.f1_per_pattern(found, patterns, memory.depth).mean())


def train(run: Run, state: Path) -> dict[str, Any]:
    """Train one memory, or go on with it."""
    patterns = run.memory.draw(run.seed)
    target = patterns[run.memory.depth :].float()
    memory = run.memory.write(patterns)
    before, first = score(memory, patterns), over_time(memory, patterns)
    optimizer = torch.optim.Adam([memory.taps], lr=run.lr)
    training = Resumable(state, memory, optimizer, torch.Generator(), dataclasses.asdict(run), best="f1")
    for step in training.epochs(run.steps, run.name()):
        loss = f1_loss(free_running_spikes(memory, patterns, run.slope), target, pooled=False)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_([memory.taps], run.clip)
        optimizer.step()
        shown = over_time(memory, patterns) if (step + 1) % max(1, run.steps // 5) == 0 else None
        training.history.append({"f1": score(memory, patterns), "over_time": shown})
    training.restore_best()
    state.unlink()
    training.best_path.unlink()
    curve = [round(one["f1"], 4) for one in training.history]
    on_the_way = {str(k + 1): one["over_time"] for k, one in enumerate(training.history) if one["over_time"]}
    return {
        "before": before, "after": max(curve), "last": curve[-1], "f1": curve, "over_time_before": first,
        "over_time": on_the_way, "over_time_best": over_time(memory, patterns),
        "cpu_s": sum(one["cpu_s"] for one in training.history),
    }  # fmt: skip


def table(found: dict[str, dict[str, Any]]) -> str:
    """Write a Markdown table, a start a line."""
    lines = ["| start | mean F1 before | best | last |", "|---|---|---|---|"]
    for name, one in found.items():
        lines.append(f"| {name} | {one['before']:.3f} | {one['after']:.3f} | {one['last']:.3f} |")
    return "\n".join(lines)


def picture(found: dict[str, dict[str, Any]], title: str, path: Path) -> None:
    """Draw F1 over training, and over time on the way."""
    from matplotlib import pyplot

    with plotting.style():
        figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 3.8))
        for color, (name, one) in zip(plotting.CATEGORIES, found.items(), strict=False):
            left.plot([one["before"], *one["f1"]], color=color, label=name)
            for share, bins in enumerate([one["over_time_before"], *one["over_time"].values()]):
                at = [BIN * (k + 0.5) for k in range(len(bins))]
                values = [float("nan") if value is None else value for value in bins]
                right.plot(at, values, color=color, alpha=0.25 + 0.75 * share / max(1, len(one["over_time"])))
        left.set(xlabel="step of the optimizer", ylabel="mean F1", ylim=(-0.02, 1.02))
        right.set(xlabel="time behind the cue (steps)", ylabel="F1 in bins; darker: later in training")
        right.set_ylim(-0.02, 1.02)
        left.legend(fontsize=9, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncol=len(found))
        figure.suptitle(title, fontsize=10)
        figure.savefig(path)
        pyplot.close(figure)


def main() -> None:
    """Run what is missing, then write the table and the picture."""
    full = "N 512, M 16, T 1000, D 41"
    parser = command_line(__doc__, out="runs/motifs_bptt", full=full, seeds=(1, 1))
    parser.add_argument("--starts", nargs="+", default=list(STARTS), choices=STARTS)
    parser.add_argument("--patterns", type=int, help="M, other than the configuration's")
    parser.add_argument("--steps", type=int, help="steps of the optimizer")
    given = read_options(parser)
    base = FULL if given.full else SMALL
    base = dataclasses.replace(base, patterns=given.patterns or base.patterns)
    steps = given.steps or (300 if given.full else 60)
    found = {}
    for start in given.starts:
        for seed in range(given.seeds):
            run = Run(dataclasses.replace(base, normalise=start), steps, seed=seed)
            path = record_path(given.out, run, run.name())
            state = path.with_suffix(".safetensors")
            result = remembered(path, run, lambda run=run, state=state: train(run, state))
            found[start if seed == 0 else f"{start}, seed {seed}"] = result
    title = f"N {base.neurons}, M {base.patterns}, T {base.time}, D {base.depth}, {steps} steps"
    text = f"Back-propagation in time, loss 1 - mean F1: {title}\n\n{table(found)}\n"
    (given.out / "table.md").write_text(text)
    print(text)
    picture(found, title, given.out / "training.png")


if __name__ == "__main__":
    main()
