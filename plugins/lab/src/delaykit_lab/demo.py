"""The demo: the same network bare, with frozen random delays and with learned delays, on held-out recorded speech."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

import delaykit as dk
from delaykit_lab.counts import count_accuracy
from delaykit_lab.report import chance_levels, conclusions, percent, table, training_failures
from delaykit_lab.runner import Epoch, FitConfig, accuracy, choose_device, fit, predict
from delaykit_lab.task import Splits, Task
from delaykit_lab.tasks.japanese_vowels import JapaneseVowels
from delaykit_lab.tasks.spike_files import SpikeFiles
from delaykit_lab.variants import (
    VARIANTS,
    Variant,
    add_delays_,
    builder,
    count_numbers,
    delays_of,
    equal_size,
    make_optimizer,
)

Watch = Callable[[Variant, int, Epoch], None]


@dataclasses.dataclass(frozen=True)
class DemoConfig:
    """Settings of the demo: development numbers, as test accuracies were seen while nets and encoding were settled.

    Args:
        library: ``snntorch`` or ``norse``.
        data: folder or file of spike trains in SHD's layout; None: JapaneseVowels.
        seeds: number of seeds, >= 1.
        epochs: epochs of each run, >= 1.
        hidden: recurrent neurons of the nets with delays; the bare net gets as many more as its parameters allow.
        max_delay: largest delay in steps.
        lr: initial learning rate of the weights.
        delay_lr: initial learning rate of the delays, in steps.
        limit: at most that many training samples of ``data``; None: all.
        device: ``cpu``, ``cuda``, or ``auto``.
    """

    library: str = "snntorch"
    data: str | None = None
    seeds: int = 3
    epochs: int = 40
    hidden: int = 48
    max_delay: int = 25
    lr: float = 1e-2
    delay_lr: float = 0.2
    limit: int | None = 1000
    device: str = "cpu"

    def __post_init__(self) -> None:
        for name in ("seeds", "epochs", "hidden", "max_delay", "lr"):
            if not getattr(self, name) > 0:
                raise dk.ConfigError(f"demo.{name}", f"{getattr(self, name)}", "a positive number")

    def task(self) -> Task:
        """The task that these settings name."""
        return JapaneseVowels() if self.data is None else SpikeFiles(self.data, limit=self.limit)


@dataclasses.dataclass(frozen=True)
class Run:
    """One trained network."""

    variant: str
    seed: int
    hidden: int
    numbers: int
    test_accuracy: float
    test_accuracy_integer: float
    history: list[Epoch]
    delays_before: dict[str, list[float]]
    delays_after: dict[str, list[float]]
    seconds: float


@dataclasses.dataclass(frozen=True)
class DemoResult:
    """All runs of a demo, with what is needed to judge them."""

    config: DemoConfig
    title: str
    sizes: dict[str, int]
    chance: float
    most_frequent: float
    counts_alone: float
    runs: list[Run]

    def accuracies(self, integer: bool = False) -> dict[str, list[float]]:
        """Test accuracy of each seed, by variant; ``integer``: with delays rounded to whole steps."""
        field = "test_accuracy_integer" if integer else "test_accuracy"
        return {v.name: [getattr(run, field) for run in self.runs if run.variant == v.name] for v in VARIANTS}

    def conclusions(self) -> list[str]:
        """Sentences on what the numbers support."""
        fitted = {
            v.title: [run.history[-1].train_accuracy for run in self.runs if run.variant == v.name] for v in VARIANTS
        }
        return conclusions(self.accuracies(), self.sizes["test"]) + training_failures(fitted)

    def to_json(self) -> dict[str, Any]:
        """Everything as plain JSON values."""
        return dataclasses.asdict(self) | {"conclusions": self.conclusions()}

    def text(self) -> str:
        """Table, chance level and conclusions."""
        numbers = {run.variant: run for run in self.runs}
        exact, whole = self.accuracies(), self.accuracies(integer=True)
        rows = [["", "hidden", "parameters", "test accuracy", "whole-step delays"]]
        for variant in VARIANTS:
            run = numbers[variant.name]
            rounded = percent(whole[variant.name]) if variant.delays else ""
            rows.append([variant.title, str(run.hidden), str(run.numbers), percent(exact[variant.name]), rounded])
        rows.append(["spike counts alone*", "", "", f"{100 * self.counts_alone:.1f} %", ""])
        lines = [
            f"{self.title}; {self.config.library}",
            f"{self.sizes['train']} training, {self.sizes['validation']} validation, {self.sizes['test']} test samples",
            "",
            table(rows),
            f"mean +- standard error over {self.config.seeds} seed(s); parameters include frozen delays",
            "* logistic regression without time",
            f"chance {100 * self.chance:.1f} % (always the most frequent class: {100 * self.most_frequent:.1f} %)",
            "",
            "What the numbers support",
            *(f"- {line}" for line in self.conclusions()),
        ]
        return "\n".join(lines)


def run_demo(config: DemoConfig, output: str | Path, *, resume: bool = False, watch: Watch | None = None) -> DemoResult:
    """Train all variants on all seeds; test data are used once, after the last epoch of each run.

    Args:
        config: the settings.
        output: folder for ``results.json`` and the state of each run.
        resume: go on from the states that an interrupted demo left in ``output``.
        watch: called with variant, seed and record after each epoch.

    Returns:
        All runs; also written to ``output/results.json``.

    Raises:
        DelaykitError: settings, data or a state file do not fit.
    """
    folder, task = Path(output), config.task()
    splits = task.splits(seed=0)
    runs: list[Run] = []
    with _one_thread():
        for seed in range(config.seeds):
            for variant in VARIANTS:
                state = folder / "state" / f"{variant.name}-{seed}.safetensors"
                if not resume:
                    state.unlink(missing_ok=True)
                follow = None if watch is None else lambda e, v=variant, s=seed: watch(v, s, e)
                runs.append(_run(config, task, splits, variant, seed, state, follow))
    sizes = {name: len(getattr(splits, name)) for name in ("train", "validation", "test")}
    chance, most_frequent = chance_levels(splits.test.labels, task.classes)
    counts_alone = count_accuracy(splits)
    result = DemoResult(config, task.title(), sizes, chance, most_frequent, counts_alone, runs)
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / "results.json.new"
    temporary.write_text(json.dumps(result.to_json(), indent=1) + "\n", encoding="utf-8")
    os.replace(temporary, folder / "results.json")
    return result


def _run(
    config: DemoConfig,
    task: Task,
    splits: Splits,
    variant: Variant,
    seed: int,
    state: Path,
    follow: Callable[[Epoch], None] | None,
) -> Run:
    started = time.monotonic()
    device = choose_device(config.device)
    build = builder(config.library, task, seed)
    hidden = config.hidden
    if not variant.delays:  # what the delays cost, the bare net may spend on neurons
        hidden = equal_size(build, count_numbers(build(hidden)) + task.channels + hidden, hidden)
    net = build(hidden).to(device)
    example = splits.train.batch(torch.arange(2), device)[0]
    add_delays_(net, config.library, variant, config.max_delay, example, seed)
    before = delays_of(net)
    optimizer = make_optimizer(net, variant, config.lr, config.delay_lr)
    settings = FitConfig(epochs=config.epochs, seed=seed)
    identity = dataclasses.asdict(config) | {"seeds": None, "task": repr(task), "variant": variant.name}
    history = fit(net, splits, optimizer, settings, on_epoch=follow, checkpoint=state, identity=identity, device=device)
    exact = accuracy(predict(net, splits.test, device=device), splits.test)
    whole = exact
    if variant.learn:
        with dk.discretized(net):
            whole = accuracy(predict(net, splits.test, device=device), splits.test)
    lists = [{site: values.tolist() for site, values in found.items()} for found in (before, delays_of(net))]
    seconds = time.monotonic() - started
    return Run(variant.name, seed, hidden, count_numbers(net), exact, whole, history, lists[0], lists[1], seconds)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Run torch on one thread: at this size several only get in each other's way."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
