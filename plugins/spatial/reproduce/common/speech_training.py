"""One training of the network for speech, pruned after each epoch or not, and what is recorded of it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from common.records import Course, in_proportion
from common.speech_net import Net, Setting
from delaykit import Site
from delaykit_lab import Resumable, locate, record_path, remembered
from delaykit_lab.task import Splits
from delaykit_lab.tasks.spike_files import SpikeFiles
from delaykit_lab.training.runner import accuracy, predict

TRIALS = ((2e-3, 10.0), (4e-3, 10.0), (4e-3, 100.0))  # rate of weights; factor of positions and delays
TUNING_EPOCHS, TUNING_SEED = 6, 1000


@torch.no_grad()
def clip_adaptively_(parameters: list[nn.Parameter], most: float, least_norm: float = 1e-3) -> None:
    """Shorten each row of a gradient to ``most`` times the norm of the row of its parameter."""
    for parameter in parameters:
        if parameter.grad is not None:
            bound = most * parameter.norm(dim=-1, keepdim=True).clamp(min=least_norm)
            norm = parameter.grad.norm(dim=-1, keepdim=True)
            parameter.grad.mul_((bound / norm.clamp(min=1e-12)).clamp(max=1.0))


def train(setting: Setting, data: Splits, path: Path) -> tuple[Net, list[dict[str, Any]]]:
    """Train one network, or go on with it; return it as it was in its best epoch on validation."""
    net = Net(setting)
    weights = [net.into, net.recurrent, net.readout]
    positions = [p for p in net.parameters() if p.requires_grad and all(p is not w for w in weights)]
    groups = [{"params": weights}] + ([{"params": positions}] if positions else [])
    rates = [setting.rate, setting.position_factor * setting.rate][: len(groups)]
    optimizer = torch.optim.Adam(groups)
    order = torch.Generator().manual_seed(setting.seed)
    training = Resumable(path, net, optimizer, order, setting.record(), best="validation")
    prune = pruner(net, setting.kept)
    batches = math.ceil(len(data.train) / setting.batch)
    steps = setting.epochs * batches
    course = Course() if steps >= Course().steps else in_proportion(steps)
    for epoch in training.epochs(setting.epochs, setting.name()):
        total = 0.0
        for k, index in enumerate(torch.randperm(len(data.train), generator=order).split(setting.batch)):
            course.set_rates(optimizer, rates, epoch * batches + k)
            loss = net.loss(*data.train.batch(index))
            optimizer.zero_grad()
            loss.backward()
            clip_adaptively_([*weights, *positions], setting.clip)
            optimizer.step()
            total += loss.item() / batches
        prune((epoch + 1) / setting.epochs)
        score = accuracy(predict(net, data.validation, 100), data.validation)
        first = {"left": written(net)} if setting.kept < 1 and epoch == 0 else {}
        training.history.append({"loss": total, "validation": score, **first})
    training.restore_best()
    return net, training.history


def written(net: Net) -> list[str]:
    """Write which synapses of each matrix are not zero: a bit each, in hexadecimal digits."""
    return [np.packbits((weight != 0).numpy()).tobytes().hex() for weight in net.matrices()]


def read(masks: list[str], net: Net) -> list[Tensor]:
    """Read what `written` wrote of a network of this size."""
    found = []
    for text, weight in zip(masks, net.matrices(), strict=True):
        bits = np.unpackbits(np.frombuffer(bytes.fromhex(text), np.uint8), count=weight.numel())
        found.append(torch.from_numpy(bits.astype(bool)).view(weight.shape))
    return found


def pruner(net: Net, kept: float) -> Callable[[float], None]:
    """Return what sets the weakest synapses to zero: in each matrix all but ``kept``; nothing where all are kept."""
    if kept == 1:
        return lambda progress: None
    from delaykit_sparsify import DynamicSparsity

    sizes = net.setting.channels, net.setting.hidden
    sites = Site("hidden", *sizes), Site("hidden.recurrent", sizes[1], sizes[1], recurrent=True)
    matrices = [(DynamicSparsity(1 - kept).build(site), w) for site, w in zip(sites, net.matrices(), strict=True)]

    def prune(progress: float) -> None:
        for pruning, weight in matrices:
            pruning.step_(weight, progress)

    return prune


def run(
    setting: Setting, task: SpikeFiles, folder: Path, judge: bool,
    further: Callable[[Net, Splits, list[dict[str, Any]]], dict[str, Any]] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Train, and look at the test samples once if ``judge``; ``further`` adds to the result."""

    path = record_path(folder, setting.record(), setting.name())

    def once() -> dict[str, Any]:
        data = task.splits(setting.seed)
        net, history = train(setting, data, path.with_suffix(".safetensors"))
        scores = [one["validation"] for one in history]
        parameters, delays = net.numbers()
        with torch.no_grad():
            some = data.validation.batch(torch.arange(min(100, len(data.validation))))[0]
            spikes = net.hidden(some)
            hertz = 1000 * spikes.sum(0).mean() / setting.duration
            late = net.delay.delays_ms()
        result: dict[str, Any] = {
            "rate": setting.rate, "position_factor": setting.position_factor, "parameters": parameters,
            "delays": delays, "validation": max(scores), "best_epoch": scores.index(max(scores)) + 1,
            "last_validation": scores[-1], "curve": scores, "loss": [round(one["loss"], 4) for one in history],
            "cpu_s": sum(one["cpu_s"] for one in history), "hertz": hertz.item(),
            "mean_delay_ms": late.mean().item(), "largest_delay_ms": late.max().item(),
        }  # fmt: skip
        if setting.tortuosity:
            result["used_of_extra"] = extra_length(net)
        if setting.dims == 2 and not setting.frozen:
            result["stages"] = stages(net, spikes)
        if judge:
            result["test"] = accuracy(predict(net, data.test, 100), data.test)
        return result | (further(net, data, history) if further else {})

    files = [locate(task.path, part) for part in ("train", "test")]
    return remembered(path, setting.record(), once, files)


@torch.no_grad()
def extra_length(net: Net) -> list[float]:
    """Return the share of the extra length allowed that paths use, in ten bins: share of synapses (figure S4 A)."""
    used = torch.cat([(0.5 * (1 + one.bend.tanh())).flatten() for one in (net.delay, net.recurrent_delay)])
    counts = torch.histc(used, 10, 0.0, 1.0) / used.numel()
    return [round(float(share), 4) for share in counts]


def stages(net: Net, spikes: Tensor) -> dict[str, list[float]]:
    """Return the rates over time, in Hz, of the fifths of the neurons that the readout hears most and least (S5 B)."""
    heard = net.readout.detach().abs().sum(0).argsort()
    fifth = max(1, len(heard) // 5)
    bins = spikes.mean(1).unfold(0, max(1, len(spikes) // 20), max(1, len(spikes) // 20)).mean(2)  # (bin, neuron)
    rates = 1000 * bins / net.setting.dt
    groups = {"most heard": heard[-fifth:], "least heard": heard[:fifth]}
    return {name: [round(float(x), 2) for x in rates[:, index].mean(1)] for name, index in groups.items()}


def tuned(setting: Setting, task: SpikeFiles, folder: Path) -> Setting:
    """Choose the rates: one short run each, judged on held-out samples."""
    short = dataclasses.replace(setting, epochs=min(TUNING_EPOCHS, setting.epochs), seed=TUNING_SEED)
    trials = [dataclasses.replace(short, rate=rate, position_factor=factor) for rate, factor in TRIALS]
    scores = [run(trial, task, folder / "tuning", judge=False)["validation"] for trial in trials]
    rate, position_factor = TRIALS[scores.index(max(scores))]
    return dataclasses.replace(setting, rate=rate, position_factor=position_factor)
