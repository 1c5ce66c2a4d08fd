"""Trainings of one's own loop that go on where they were interrupted."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from delaykit import CheckpointError, TrainingError, checks
from delaykit.sealed import check_writable
from delaykit_lab.declared import path_of, plain
from delaykit_lab.training.checkpoint import load_run, save_run, saved_history


@checks.annotated
class Resumable:
    """Go through epochs, saving after each; a second start goes on after the last one saved.

    The body of the loop trains one epoch and appends its record, JSON values, to ``history``; the epoch's process time
    ``cpu_s`` is added. Whatever the body draws must come from ``order`` to be the same after an interruption.

    Args:
        path: file of the state; it is read at once if it exists. The best epoch's is beside it, ``PATH.best``.
        net: its state dict is kept.
        optimizer: its tensors are kept; learning rates are not, they follow from the epoch.
        order: generator of the sample order.
        config: JSON values; a state that was saved with others is refused.
        best: key of the records; the state after the epoch with its largest value is kept besides.

    Raises:
        CheckpointError: the file is damaged or foreign, belongs to another configuration, model or optimizer, or could
            not be written.

    Example:
        >>> import tempfile
        >>> net, order = nn.Linear(2, 1), torch.Generator().manual_seed(0)
        >>> optimizer = torch.optim.Adam(net.parameters())
        >>> path = Path(tempfile.mkdtemp()) / "run.safetensors"
        >>> training = Resumable(path, net, optimizer, order, {"seed": 0})
        >>> for epoch in training.epochs(2):
        ...     training.history.append({"loss": 1.0 / (epoch + 1)})
        >>> again = Resumable(path, net, optimizer, order, {"seed": 0})
        >>> [again.history.append({"loss": 0.1}) or epoch for epoch in again.epochs(3)]
        [2]
    """

    def __init__(
        self, path: str | Path, net: nn.Module, optimizer: torch.optim.Optimizer, order: torch.Generator,
        config: dict[str, Any], best: str | None = None,
    ) -> None:  # fmt: skip
        self.path = path_of("Resumable path", path)
        self.net, self.optimizer, self.order = net, optimizer, order
        self.config, self.best = plain("Resumable config", config), best
        check_writable(self.path)
        there = self.path.exists()
        self.history: list[dict[str, Any]] = load_run(self.path, net, optimizer, order, self.config) if there else []

    @checks.annotated
    def epochs(self, count: int, title: str | None = None) -> Iterator[int]:
        """Yield the number of each epoch that is missing, from 0, and save after each.

        Args:
            count: how many epochs there are in all.
            title: of a progress bar; None: no bar. The bar shows the numbers of the last record.

        Raises:
            TrainingError: the body of the loop appended no record, or one without the key ``best``.
            ConfigError: a record that JSON does not hold; numbers of numpy and torch become plain ones.
        """
        done = min(count, len(self.history))
        with tqdm(total=count, initial=done, desc=title, disable=title is None, mininterval=10) as bar:
            while len(self.history) < count:
                before, start = len(self.history), time.process_time()
                yield before
                if len(self.history) != before + 1:
                    found = f"{len(self.history) - before} records of epoch {before + 1}"
                    raise TrainingError("Resumable.epochs", found, "one", "append a record to `history` in each epoch")
                record = self._checked(before)
                record.setdefault("cpu_s", time.process_time() - start)
                if self._is_best(record):
                    self._save(self.best_path)  # first: an interruption in between repeats the epoch
                self._save(self.path)
                if self.best is not None and self.best not in record:
                    found = f"no {self.best!r} in the record of epoch {before + 1}, which is saved"
                    expected = f"one of {', '.join(map(repr, record))}"
                    raise TrainingError("Resumable best", found, expected, "name one of them, and start again")
                bar.update()
                shown = {name: value for name, value in record.items() if isinstance(value, float)}
                bar.set_postfix({name: f"{value:.4g}" for name, value in shown.items()}, refresh=False)

    def restore_best(self) -> None:
        """Put the net, the optimizer and the order back to what they were after the best epoch.

        Raises:
            CheckpointError: no epoch was the best yet, or its file is damaged.
        """
        path = self.best_path
        if not path.exists() and (former := self.path.with_suffix(".best")).exists():
            path = former  # of earlier versions, which may be that of another run
        if path.exists():
            told = saved_history(path)
            both = min(len(told), len(self.history))  # a run that was stopped between its two files repeats an epoch
            if json.dumps(told[:both]) != json.dumps(self.history[:both]):
                fix = "give each run a file of its own, and train again"
                raise CheckpointError(str(path), "the best epoch of another run", f"one of {self.path}", fix)
        load_run(path, self.net, self.optimizer, self.order, self.config)

    def _checked(self, epoch: int) -> dict[str, Any]:
        record = self.history[-1]
        if not isinstance(record, dict):
            found = f"a record of type {type(record).__name__} of epoch {epoch + 1}"
            raise TrainingError("Resumable.epochs", found, "values by name", "append e.g. {'loss': 0.5}")
        self.history[-1] = plain(f"the record of epoch {epoch + 1},", record)
        return self.history[-1]

    def _is_best(self, record: dict[str, Any]) -> bool:
        """Tell whether a record is better than all before it; NaN is never the best."""
        if self.best is None:
            return False
        value = record.get(self.best)
        if not isinstance(value, (int, float)) or math.isnan(value):
            return False
        earlier = [one.get(self.best) for one in self.history[:-1]]
        return all(value > one for one in earlier if isinstance(one, (int, float)) and not math.isnan(one))

    @property
    def best_path(self) -> Path:
        """The file of the state after the best epoch."""
        return self.path.with_name(f"{self.path.name}.best")

    def _save(self, path: Path) -> None:
        save_run(path, self.net, self.optimizer, self.order, self.config, self.history)
