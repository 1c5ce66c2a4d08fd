"""Trainings of one's own loop that go on where they were interrupted."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from delaykit import TrainingError
from delaykit_lab.declared import path_of
from delaykit_lab.training.checkpoint import load_run, save_run


class Resumable:
    """Go through epochs, saving after each; a second start goes on after the last one saved.

    The body of the loop trains one epoch and appends its record, JSON values, to ``history``; the epoch's process time
    ``cpu_s`` is added. Whatever the body draws must come from ``order`` to be the same after an interruption.

    Args:
        path: file of the state; it is read at once if it exists.
        net: its state dict is kept.
        optimizer: its tensors are kept; learning rates are not, they follow from the epoch.
        order: generator of the sample order.
        config: JSON values; a state that was saved with others is refused.
        best: key of the records; the state after the epoch with its largest value is kept besides.

    Raises:
        CheckpointError: the file is damaged or foreign, or belongs to another configuration or model.

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
        self.net, self.optimizer, self.order, self.config = net, optimizer, order, config
        self.best = best
        there = self.path.exists()
        self.history: list[dict[str, Any]] = load_run(self.path, net, optimizer, order, config) if there else []

    def epochs(self, count: int, title: str | None = None) -> Iterator[int]:
        """Yield the number of each epoch that is missing, from 0, and save after each.

        Args:
            count: how many epochs there are in all.
            title: of a progress bar; None: no bar. The bar shows the numbers of the last record.

        Raises:
            TrainingError: the body of the loop appended no record.
        """
        done = min(count, len(self.history))
        with tqdm(total=count, initial=done, desc=title, disable=title is None, mininterval=10) as bar:
            while len(self.history) < count:
                before, start = len(self.history), time.process_time()
                yield before
                if len(self.history) != before + 1:
                    found = f"{len(self.history) - before} records of epoch {before + 1}"
                    raise TrainingError("Resumable.epochs", found, "one", "append a record to `history` in each epoch")
                record = self.history[-1]
                record.setdefault("cpu_s", time.process_time() - start)
                if self.best is not None and all(record[self.best] > one[self.best] for one in self.history[:-1]):
                    self._save(self._best_path())  # first: an interruption in between repeats the epoch
                self._save(self.path)
                bar.update()
                shown = {name: value for name, value in record.items() if isinstance(value, float)}
                bar.set_postfix({name: f"{value:.4g}" for name, value in shown.items()}, refresh=False)

    def restore_best(self) -> None:
        """Put the net, the optimizer and the order back to what they were after the best epoch.

        Raises:
            CheckpointError: no epoch was the best yet, or its file is damaged.
        """
        load_run(self._best_path(), self.net, self.optimizer, self.order, self.config)

    def _best_path(self) -> Path:
        return self.path.with_suffix(".best")

    def _save(self, path: Path) -> None:
        save_run(path, self.net, self.optimizer, self.order, self.config, self.history)
