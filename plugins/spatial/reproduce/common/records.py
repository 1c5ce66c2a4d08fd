"""The learning rate's course, names of dims, and tables."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

import torch


def factor(step: int, steps: int, least: float = 0.1) -> float:
    """Rise over the first twentieth of a training, fall along half a cosine to ``least`` at its end.

    The paper's 500 warm-up steps of 10 000, in proportion.
    """
    warm = max(1, steps // 20)
    return min(1.0, (step + 1) / warm) * (least + (1 - least) * 0.5 * (1 + math.cos(math.pi * step / steps)))


def set_rates(optimizer: torch.optim.Optimizer, rates: Sequence[float], step: int, steps: int) -> None:
    """Give every group its learning rate for a step."""
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate * factor(step, steps)


def dims_name(dims: float) -> str:
    """Return ``0``, ``1``, ``2``, ... or ``inf``."""
    return "inf" if math.isinf(dims) else f"{int(dims)}"


def table(rows: dict[str, list[dict[str, Any]]]) -> str:
    """Write a Markdown table: a row for each variant, every seed's test accuracy, median, mean and standard error."""
    lines = [
        "| network | parameters | for delays | rate | validation (%) | test, each seed (%) | median | mean ± s.e. |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, runs in rows.items():
        test = [100 * run["test"] for run in runs]
        validation = statistics.mean(100 * run["validation"] for run in runs)
        error = statistics.stdev(test) / len(test) ** 0.5 if len(test) > 1 else float("nan")
        each = " ".join(f"{one:.1f}" for one in test)
        first = runs[0]
        lines.append(
            f"| {name} | {first['parameters']} | {first['delays']} | {first['rate']:g} | {validation:.1f} | {each} "
            f"| {statistics.median(test):.1f} | {statistics.mean(test):.1f} ± {error:.1f} |"
        )
    return "\n".join(lines)
