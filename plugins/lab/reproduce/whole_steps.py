"""What whole delays cost, by how they were trained: each policy of rounding, on the moving wave and on speech.

    python plugins/lab/reproduce/whole_steps.py                        # the wave: five minutes on one core
    python plugins/lab/reproduce/whole_steps.py --data FOLDER          # and speech, on files in SHD's layout

One layer of leaky neurons (snnTorch) with a delay a synapse, which is learned with its weights. *real*: what the policy
computes with as trained; *whole*: inside ``dk.discretized``, as hardware runs it. The last epoch counts; nothing is
chosen by the test set. Finished runs are kept under ``--out`` and not run again. Reductions: 1024 waves, 1500
utterances.
"""

from __future__ import annotations

import functools
from statistics import mean, stdev
from typing import Any

import torch
from torch import nn

import delaykit as dk
from delaykit_lab import MovingWave, command_line, read_options, record_path, remembered
from delaykit_lab.data.spike_hdf5 import locate
from delaykit_lab.models.networks import ModelSpec
from delaykit_lab.task import Splits, Task
from delaykit_lab.tasks.spike_files import SpikeFiles
from delaykit_lab.training.runner import FitConfig, accuracy, fit, predict

POLICIES = {
    "rounded afterwards": "the delays are real while they train, and rounded at the end",
    "straight-through": "whole from the first epoch on, with the gradient of the real delay",
    "stochastic": "whole from the first epoch on, rounded up with the probability of the fraction (DelRec)",
    "each epoch": "real, but rounded for good after every epoch (DelRec)",
    "wide, rounded afterwards": "arrivals are triangles that narrow to one step, and rounded at the end",
    "wide, straight-through": "the same triangles around whole delays",
    "wide, stochastic": "the same triangles around whole delays, rounded at random (DelRec)",
    "rounded, weights go on": "real for four fifths of the epochs, then rounded for good, and only weights train on",
}
SETTINGS: dict[str, dict[str, Any]] = {
    "wave": {"model": "snn:16,beta=0.6", "max_delay": 16, "lr": 5e-3},
    "speech": {"model": "snn:96,beta=0.8", "max_delay": 25, "lr": 3e-3},
}
TRAINING = {"epochs": 30, "batch_size": 64, "delay_lr": 0.1}


def component(policy: str, max_delay: int) -> dk.ComponentConfig:
    """Describe the delays of a policy."""
    if policy.endswith(("stochastic", "each epoch")):
        from delaykit_delrec import DelRec

        rounding, spread = policy.removeprefix("wide, ").replace(" ", "-"), 4.0 if policy.startswith("wide") else 0.0
        return DelRec("synaptic", max_delay=max_delay, sigma=spread, rho=0.93, init="uniform", rounding=rounding)
    wide = {"kernel": "triangle", "spread": 4.0, "spread_decay": 0.93} if policy.startswith("wide") else {}
    rounding = "straight-through" if policy.endswith("straight-through") else "none"
    return dk.FreeDelay("synaptic", max_delay=max_delay, rounding=rounding, **wide)


@functools.cache
def splits_of(task: Task) -> Splits:
    """Return the samples, the same for all seeds."""
    return task.splits(seed=0)


def train(task: Task, setting: dict[str, Any], policy: str, seed: int) -> dict[str, Any]:
    """Train one network, and measure it as trained and with whole delays."""
    splits = splits_of(task)
    net: Any = ModelSpec.parse(setting["model"]).build(task, seed)
    example = splits.train.batch(torch.arange(2))[0]
    rules = {site: dk.At(component(policy, setting["max_delay"]), time_dim=0) for site in net.forward_sites}
    dk.wrap_(net, rules, example=example, generator=torch.Generator().manual_seed(seed))
    optimizer = torch.optim.Adam(dk.param_groups(net, lr=setting["lr"], delay_lr=setting["delay_lr"]))
    dk.attach(optimizer, net)

    def advance(done: float) -> None:
        dk.advance_(net, done)
        if policy == "rounded, weights go on" and done >= 0.8:
            _freeze_whole_(net)

    config = FitConfig(setting["epochs"], setting["batch_size"], seed=seed)
    history = fit(net, splits, optimizer, config, advance=advance)
    real = accuracy(predict(net, splits.test), splits.test)
    with dk.discretized(net):
        whole = accuracy(predict(net, splits.test), splits.test)
    return {"real": real, "whole": whole, "train": history[-1].train_accuracy}


def _freeze_whole_(net: nn.Module) -> None:
    dk.finalize_(net)
    for site in dk.wrapped_sites(net):
        for parameter in site.synapse.parameters():
            parameter.requires_grad_(False)
            parameter.grad = None


def tasks(data: Any) -> dict[str, tuple[Task, list[Any]]]:
    """Return the tasks by name, with the files that they read."""
    found: dict[str, tuple[Task, list[Any]]] = {"wave": (MovingWave(), [])}
    if data is not None:
        speech = SpikeFiles(data, dt_ms=20.0, channels=70, limit=1500, validation=0.15)
        found["speech"] = speech, [locate(data, part) for part in ("train", "test")]
    return found


def main() -> None:
    """Run what is not there yet, and show the table."""
    files = "folder with *train*.h5 and *test*.h5 in SHD's layout; without it the wave alone"
    options = read_options(command_line(__doc__, out="runs/lab_whole_steps", seeds=(3, 3), data=files))
    for name, (task, read) in tasks(options.data).items():
        setting = {**SETTINGS[name], **TRAINING}
        print(f"\n{name}: {task.title()}, {setting['model']}, {options.seeds} seeds")
        reference = None  # real delays, the first policy
        for policy in POLICIES:
            runs = []
            for seed in range(options.seeds):
                settings = {"task": task.title(), "policy": policy, "seed": seed, **setting}
                path = record_path(options.out, settings, f"{name}_{policy.replace(' ', '_').replace(',', '')}_{seed}")
                run = functools.partial(train, task, setting, policy, seed)
                runs.append(remembered(path, settings, run, read))
            real, whole = ([100 * run[kind] for run in runs] for kind in ("real", "whole"))
            reference = mean(real) if reference is None else reference
            lost = reference - mean(whole)
            print(f"{policy:26} real {_told(real)}   whole {_told(whole)}   below real delays {lost:+5.1f}", flush=True)


def _told(values: list[float]) -> str:
    return f"{mean(values):5.1f} +- {stdev(values) if len(values) > 1 else 0.0:.1f}"


if __name__ == "__main__":
    main()
