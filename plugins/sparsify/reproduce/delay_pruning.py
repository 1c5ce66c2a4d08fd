"""How many delays are needed? Accuracy against the fraction of delays kept, by use against at random.

    python plugins/sparsify/reproduce/delay_pruning.py                 # the moving wave: five minutes on one core
    python plugins/sparsify/reproduce/delay_pruning.py --data FOLDER   # and speech, on files in SHD's layout

One layer of leaky neurons (snnTorch) with a delay a synapse, learned with its weights. ``DelayPruning`` sets delays to
0 over the first half of the epochs and keeps them there; every synapse stays. The last epoch counts; nothing is chosen
by the test set. Finished runs are kept under ``--out`` and not run again.
"""

from __future__ import annotations

import functools
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import matplotlib
import torch

import delaykit as dk
from delaykit import plotting
from delaykit_lab import MovingWave, command_line, read_options, record_path, remembered
from delaykit_lab.data.spike_hdf5 import locate
from delaykit_lab.models.networks import ModelSpec
from delaykit_lab.task import Splits, Task
from delaykit_lab.tasks.spike_files import SpikeFiles
from delaykit_lab.training.runner import FitConfig, accuracy, fit, predict
from delaykit_sparsify import DelayPruning

KEPT = (0.0, 0.05, 0.1, 0.2, 0.5, 1.0)
SETTINGS: dict[str, dict[str, Any]] = {
    "wave": {"model": "snn:16,beta=0.6", "max_delay": 16, "lr": 5e-3, "epochs": 30},
    "speech": {"model": "snn:96,beta=0.8", "max_delay": 25, "lr": 3e-3, "epochs": 20},
}
Runs = dict[tuple[str, float], list[float]]  # (by, kept): test accuracies


@functools.cache
def splits_of(task: Task) -> Splits:
    """Return the samples, the same for all seeds."""
    return task.splits(seed=0)


def train(task: Task, setting: dict[str, Any], by: str, kept: float, seed: int) -> dict[str, Any]:
    """Train one network, pruning its delays on the way, and measure it."""
    splits = splits_of(task)
    net: Any = ModelSpec.parse(setting["model"]).build(task, seed)
    pruning = () if kept == 1 else (DelayPruning(kept, by=by),)
    delay = dk.FreeDelay("synaptic", max_delay=setting["max_delay"])
    rules = {site: dk.At(delay, *pruning, time_dim=0) for site in net.forward_sites}
    dk.wrap_(net, rules, splits.train.batch(torch.arange(2))[0], torch.Generator().manual_seed(seed))
    optimizer = torch.optim.Adam(dk.param_groups(net, lr=setting["lr"], delay_lr=0.1))
    dk.attach(optimizer, net)
    history = fit(
        net, splits, optimizer, FitConfig(setting["epochs"], 64, seed=seed), advance=lambda done: dk.advance_(net, done)
    )
    late = torch.cat([delays.flatten() for delays in dk.status(net).delays.values()])
    return {
        "test": accuracy(predict(net, splits.test), splits.test),
        "train": history[-1].train_accuracy,
        "delayed": float((late > 0).double().mean()),
    }


def picture(found: dict[str, Runs], path: Path) -> None:
    """Draw accuracy against the fraction of delays kept, a panel a task."""
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    with plotting.style():
        figure, axes = plt.subplots(1, len(found), figsize=(4.6 * len(found), 3.8), squeeze=False, layout="constrained")
        for ax, (name, runs) in zip(axes[0], found.items(), strict=True):
            for colour, by, line in zip(plotting.CATEGORIES, ("use", "random"), ("o-", "s--"), strict=False):
                points = [(kept, runs[by, kept]) for kept in KEPT]
                y, error = [100 * mean(v) for _, v in points], [100 * _spread(v) for _, v in points]
                ax.errorbar(range(len(KEPT)), y, error, fmt=line, color=colour, label=f"kept by {by}", capsize=2)
            ax.set(xlabel="fraction of delays kept (the synapses stay)", title=name)
            ax.set_xticks(range(len(KEPT)), [f"{kept:g}" for kept in KEPT])
        axes[0][0].set_ylabel("test accuracy (%)")
        axes[0][0].legend(loc="lower right")
        figure.savefig(path)


def _spread(values: list[float]) -> float:
    return stdev(values) if len(values) > 1 else 0.0


def _told(values: list[float]) -> str:
    return f"{100 * mean(values):5.1f} +- {100 * _spread(values):.1f}"


def main() -> None:
    """Run what is not there yet; show the table and the picture."""
    files = "folder with *train*.h5 and *test*.h5 in SHD's layout; without it the wave alone"
    options = read_options(command_line(__doc__, out="runs/sparsify_delay_pruning", seeds=(3, 3), data=files))
    tasks: dict[str, tuple[Task, list[Path]]] = {"wave": (MovingWave(), [])}
    if options.data is not None:
        speech = SpikeFiles(options.data, dt_ms=20.0, channels=70, limit=1500, validation=0.15)
        tasks["speech"] = speech, [locate(options.data, part) for part in ("train", "test")]
    found: dict[str, Runs] = {}
    for name, (task, read) in tasks.items():
        print(f"\n{name}: {task.title()}, {SETTINGS[name]['model']}, {options.seeds} seeds")
        runs: Runs = {}
        for kept in KEPT:
            for by in ("use", "random"):
                for seed in range(options.seeds):
                    rule = "use" if kept == 1 else by  # without pruning there is no choice
                    settings = {"task": task.title(), "by": rule, "kept": kept, "seed": seed, **SETTINGS[name]}
                    path = record_path(options.out, settings, f"{name}_{rule}_{kept:g}_{seed}")
                    run = functools.partial(train, task, SETTINGS[name], rule, kept, seed)
                    runs.setdefault((by, kept), []).append(remembered(path, settings, run, read)["test"])
            cells = [_told(runs[by, kept]) for by in ("use", "random")]
            print(f"kept {kept:5g}   by use {cells[0]}   at random {cells[1]}", flush=True)
        found[name] = runs
    picture(found, options.out / "delay_pruning.png")


if __name__ == "__main__":
    main()
