"""Train the rows of the demo's tables: bare, frozen random, learned and learned whole delays, on held-out samples."""

from __future__ import annotations

import dataclasses
import functools
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

import delaykit as dk
from delaykit_lab.comparison.counts import count_accuracy
from delaykit_lab.demo.parts import Part
from delaykit_lab.demo.variants import VARIANTS, Variant, count_numbers, delays_of, make_optimizer
from delaykit_lab.records.files import write_json
from delaykit_lab.records.statistics import chance_levels, conclusions, percent, table, training_failures
from delaykit_lab.task import Splits
from delaykit_lab.training.runner import Epoch, FitConfig, accuracy, choose_device, fit, predict

Watch = Callable[[Variant, int, Epoch], None]


@dataclasses.dataclass(frozen=True)
class Run:
    """One trained network."""

    variant: str
    seed: int
    rate: float
    hidden: int
    numbers: int
    test_accuracy: float
    test_accuracy_integer: float
    history: list[Epoch]
    delays_before: dict[str, list[float]]
    delays_after: dict[str, list[float]]
    tried: dict[str, float]  # this seed's validation accuracy after the last epoch, at each rate
    seconds: float  # of this process at all rates, whatever else the machine did


@dataclasses.dataclass(frozen=True)
class DemoResult:
    """All runs of one part of the demo, with what is needed to judge them."""

    config: Part
    title: str
    sizes: dict[str, int]
    chance: float
    most_frequent: float
    counts_alone: float
    searched: bool
    runs: list[Run]

    def accuracies(self, integer: bool = False) -> dict[str, list[float]]:
        """Test accuracy of each seed, by variant; ``integer``: with delays rounded to whole steps afterwards."""
        field = "test_accuracy_integer" if integer else "test_accuracy"
        return {v.name: [getattr(run, field) for run in self.runs if run.variant == v.name] for v in VARIANTS}

    def conclusions(self) -> list[str]:
        """Sentences on what the numbers support."""
        found = conclusions(self.accuracies(), self.sizes["test"])
        if self.config.fits:
            runs = {v.title: [run for run in self.runs if run.variant == v.name] for v in VARIANTS}
            reached = {title: [run.history[-1].train_accuracy for run in some] for title, some in runs.items()}
            found += training_failures(reached)
        return found

    def to_json(self) -> dict[str, Any]:
        """Everything as plain JSON values."""
        return dataclasses.asdict(self) | {"part": self.config.name, "conclusions": self.conclusions()}

    def text(self) -> str:
        """Table, chance level and conclusions."""
        numbers = {run.variant: run for run in self.runs}
        exact, whole = self.accuracies(), self.accuracies(integer=True)
        rows = [["", "hidden", "parameters", "rate", "test accuracy", "rounded afterwards"]]
        for variant in VARIANTS:
            run = numbers[variant.name]
            rounded = percent(whole[variant.name]) if variant.name == "learned" else ""
            cells = [str(run.hidden), str(run.numbers), f"{run.rate:g}", percent(exact[variant.name]), rounded]
            rows.append([variant.title, *cells])
        rows.append(["spike counts alone*", "", "", "", f"{100 * self.counts_alone:.1f} %", ""])
        lines = [
            f"{self.title}; {self.config.network_title()}",
            f"{self.sizes['train']} training, {self.sizes['validation']} validation, {self.sizes['test']} test samples",
            "",
            table(rows),
            f"mean +- standard error over {self.config.seeds} seed(s); parameters include frozen delays",
            self._rates(),
            "* logistic regression without time",
            f"chance {100 * self.chance:.1f} % (always the most frequent class: {100 * self.most_frequent:.1f} %)",
            "",
            "What the numbers support",
            *(f"- {line}" for line in self.conclusions()),
        ]
        return "\n".join(lines)

    def _rates(self) -> str:
        tried = ", ".join(f"{rate:g}" for rate in self.config.rates)
        if self.searched:
            return f"each row has, of the rates {tried}, the one best on validation samples, in the mean of all seeds"
        found = f"delaykit reproduce lab --only {self.config.name}"
        return (
            f"rates are not searched now: each row has the one that a search on record ({found}) found best,\n"
            f"of {tried} by the mean of {self.config.standard()['seeds']} seeds' validation samples"
        )


def run_demo(
    config: Part, output: str | Path, *, resume: bool = False, watch: Watch | None = None, search: bool = False
) -> DemoResult:
    """Train all variants on all seeds; test data are used once, after the last epoch of each run at its row's rate.

    Args:
        config: the settings of one part.
        output: folder for ``results.json`` and the state of each run.
        resume: go on from the states that an interrupted demo left in ``output``.
        watch: called with variant, seed and record after each epoch.
        search: train at all rates even where :meth:`Part.known_rates` has one for each row.

    Returns:
        All runs; also written to ``output/results.json``.

    Raises:
        DelaykitError: settings, data or a state file do not fit.
    """
    folder, task = Path(output), config.task()
    splits = task.splits(seed=0)
    known = {} if search else config.known_rates()
    runs: list[Run] = []
    with _one_thread():
        for variant in VARIANTS:
            follow = None if watch is None else functools.partial(watch, variant)
            rates = (known[variant.name],) if known else config.rates
            trained = {
                rate: [
                    _Training(config, splits, variant, seed, rate, _state(folder, variant, seed, rate, resume), follow)
                    for seed in range(config.seeds)
                ]
                for rate in rates
            }
            means = {rate: statistics.mean(one.validation() for one in some) for rate, some in trained.items()}
            best = max(means, key=lambda rate: (means[rate], -rate))
            runs += [one.test([some[one.seed] for some in trained.values()]) for one in trained[best]]
    runs.sort(key=lambda run: run.seed)
    sizes = {name: len(getattr(splits, name)) for name in ("train", "validation", "test")}
    chance, most_frequent = chance_levels(splits.test.labels, task.classes)
    counts = count_accuracy(splits)
    result = DemoResult(config, task.title(), sizes, chance, most_frequent, counts, not known, runs)
    write_json(folder / "results.json", result.to_json())
    return result


def count_epochs(config: Part) -> int:
    """Count the epochs that :func:`run_demo` trains, with those that choose a rate."""
    return len(VARIANTS) * config.epochs * config.seeds * (1 if config.known_rates() else len(config.rates))


def _state(folder: Path, variant: Variant, seed: int, rate: float, resume: bool) -> Path:
    """Return where a run keeps its state; one of an earlier demo goes, unless this one resumes it."""
    path = folder / "state" / f"{variant.name}-{seed}-{rate:g}.safetensors"
    if not resume:
        path.unlink(missing_ok=True)
    return path


class _Training:
    """One network, trained at one rate; the test samples are left for :meth:`test`."""

    def __init__(
        self,
        config: Part,
        splits: Splits,
        variant: Variant,
        seed: int,
        rate: float,
        state: Path,
        follow: Callable[[int, Epoch], None] | None,
    ) -> None:
        started = time.process_time()
        self.config, self.splits, self.variant, self.seed, self.rate = config, splits, variant, seed, rate
        self.task, self.device = config.task(), choose_device(config.device)
        example = splits.train.batch(torch.arange(2))[0]
        self.net = config.network(self.task, variant, example, seed).to(self.device)
        self.before = delays_of(self.net)
        self.run = config.runner(self.net, example.to(self.device))
        optimizer = make_optimizer(self.net, variant, rate, config.delay_lr)
        chosen = {"seeds": None, "rates": rate, "task": repr(self.task), "variant": variant.name}
        self.history = fit(
            self.net,
            splits,
            optimizer,
            FitConfig(epochs=config.epochs, seed=seed),
            on_epoch=None if follow is None else functools.partial(follow, seed),
            checkpoint=state,
            identity=dataclasses.asdict(config) | chosen,
            device=self.device,
            forward=self.run,
        )
        self.seconds = time.process_time() - started

    def validation(self) -> float:
        return self.history[-1].validation_accuracy

    def test(self, tried: list[_Training]) -> Run:
        """Meet the test samples: as trained, and with delays rounded afterwards.

        Args:
            tried: this seed's trainings at all rates, this one among them.
        """
        started = time.process_time()
        exact = whole = self.accuracy()
        if self.variant.learn:
            with dk.discretized(self.net):
                whole = self.accuracy()
        before, after = (
            {site: values.tolist() for site, values in found.items()} for found in (self.before, delays_of(self.net))
        )
        return Run(
            self.variant.name,
            self.seed,
            self.rate,
            _readout(self.net).in_features,
            count_numbers(self.net),
            exact,
            whole,
            self.history,
            before,
            after,
            {f"{one.rate:g}": one.validation() for one in tried},
            sum(one.seconds for one in tried) + time.process_time() - started,
        )

    def accuracy(self) -> float:
        scores = predict(self.net, self.splits.test, device=self.device, forward=self.run)
        return accuracy(scores, self.splits.test)


def _readout(net: nn.Module) -> nn.Linear:
    return [module for module in net.modules() if isinstance(module, nn.Linear)][-1]


@contextmanager
def _one_thread() -> Iterator[None]:
    """Run torch on one thread: at this size several only get in each other's way."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
