"""The same budget for every model: each learning rate once with a seed of its own, then the best one with all seeds.

With one rate, the paper's, nothing is tried.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from delaykit_lab import record_path, remembered

TUNING_SEED = 1000


class Budget:
    """All runs of one configuration.

    Args:
        base: settings of a run, a frozen dataclass with the fields ``lr`` and ``seed`` and a ``title()``; what is asked
            for changes it.
        train: runs one.
        rates: learning rates to choose from.
        better: of a tuning run's result, larger for better.
        seeds: how many are reported.
        folder: where finished runs are kept.
        tuning: what is different in tuning runs, for every model alike.
        trial: runs a tuning run, if otherwise than ``train``: without a look at test samples.
        data: files that are read, for their checksums.
    """

    def __init__(
        self, base: Any, train: Callable[[Any], dict[str, Any]], rates: tuple[float, ...],
        better: Callable[[dict[str, Any]], Any], seeds: int, folder: Path, tuning: dict[str, Any] | None = None,
        trial: Callable[[Any], dict[str, Any]] | None = None, data: Sequence[Path] = (),
    ) -> None:  # fmt: skip
        self.base, self.train, self.rates, self.better, self.seeds, self.folder, self.tuning = (
            base, train, rates, better, seeds, folder, tuning or {},
        )  # fmt: skip
        self.trial, self.data = trial or train, data

    def run(self, **changes: Any) -> dict[str, Any]:
        """Run once, or remember."""
        return self._once(self.train, self.folder, changes)

    def _once(self, train: Callable[[Any], dict[str, Any]], folder: Path, changes: dict[str, Any]) -> dict[str, Any]:
        run = dataclasses.replace(self.base, **changes)
        name = re.sub(r"[^\w.-]+", "_", run.title())
        return remembered(record_path(folder, run, name), run, lambda: train(run), self.data)

    def seeded(self, seeds: int | None = None, **changes: Any) -> list[dict[str, Any]]:
        """Run once a seed."""
        return [self.run(seed=seed, **changes) for seed in range(seeds or self.seeds)]

    def tuned(self, **changes: Any) -> tuple[float, list[dict[str, Any]]]:
        """Choose the learning rate, where there is a choice, then run once a seed."""
        if len(self.rates) == 1:
            return self.rates[0], self.seeded(lr=self.rates[0], **changes)
        trials = []
        for lr in self.rates:
            given = {**changes, **self.tuning, "lr": lr, "seed": TUNING_SEED}
            trials.append((self.better(self._once(self.trial, self.folder / "tuning", given)), lr))
        best = max(trials)[1]
        return best, self.seeded(lr=best, **changes)
