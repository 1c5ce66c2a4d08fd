"""The learning rate's course, names of dims, and tables."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Sequence
from typing import Any

import torch

from delaykit_lab.records.tables import markdown


@dataclasses.dataclass(frozen=True)
class Course:
    """The papers' schedule of learning rates (Tables 1 and 2): warm-up, then half a cosine down to a tenth.

    Args:
        warm_up: steps of the linear rise.
        steps: step at which the lowest rate is reached; it stays.
        least: lowest rate over highest.

    Example:
        >>> course = Course()
        >>> [round(course.factor(step), 3) for step in (0, 499, 5250, 10000, 20000)]
        [0.002, 1.0, 0.55, 0.1, 0.1]
    """

    warm_up: int = 500
    steps: int = 10_000
    least: float = 0.1

    def factor(self, step: int) -> float:
        """Return the rate of a step, counted from 0, over the highest."""
        if step < self.warm_up:
            return (step + 1) / self.warm_up
        progress = min(1.0, (step - self.warm_up) / (self.steps - self.warm_up))
        return self.least + (1 - self.least) * 0.5 * (1 + math.cos(math.pi * progress))

    def set_rates(self, optimizer: torch.optim.Optimizer, rates: Sequence[float], step: int) -> None:
        """Give every group its learning rate for a step."""
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * self.factor(step)


def in_proportion(steps: int) -> Course:
    """Return the schedule of a shorter training: warm-up over its first twentieth, the lowest rate at its end."""
    warm_up = max(1, steps // 20)
    return Course(warm_up, max(steps, warm_up + 1))


def dims_name(dims: float) -> str:
    """Return ``0``, ``1``, ``2``, ... or ``inf``."""
    return "inf" if math.isinf(dims) else f"{int(dims)}"


def table(rows: dict[str, list[dict[str, Any]]]) -> str:
    """Write a Markdown table: a row for each variant, every seed's test accuracy, median, mean and standard error."""
    head = ["network", "parameters", "for delays", "rate", "validation (%)", "test, each seed (%)", "median"]
    lines = []
    for name, runs in rows.items():
        test = [100 * run["test"] for run in runs]
        validation = statistics.mean(100 * run["validation"] for run in runs)
        error = f" ± {statistics.stdev(test) / len(test) ** 0.5:.1f}" if len(test) > 1 else ""
        each = " ".join(f"{one:.1f}" for one in test)
        first = runs[0]
        middle = f"{statistics.median(test):.1f}", f"{statistics.mean(test):.1f}{error}"
        sizes = first["parameters"], first["delays"], f"{first['rate']:g}"
        lines.append([name, *sizes, f"{validation:.1f}", each, *middle])
    return markdown([*head, "mean ± s.e."], lines)
