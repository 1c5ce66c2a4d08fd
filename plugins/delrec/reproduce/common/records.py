"""A table with standard errors."""

from __future__ import annotations

import statistics
from typing import Any

from delaykit_lab.records.tables import markdown


def mean_and_error(values: list[float]) -> tuple[float, float]:
    """Return the mean and its standard error over seeds."""
    error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else float("nan")
    return statistics.mean(values), error


def table(rows: dict[str, list[dict[str, Any]]], columns: dict[str, str], scale: float) -> str:
    """Write a Markdown table: a row for each variant, mean and standard error over its seeds."""
    lines = []
    for name, runs in rows.items():
        cells = []
        for key in columns:
            mean, error = mean_and_error([scale * run[key] for run in runs])
            digits, precise = (".3g", ".2g") if scale == 1 else (".1f", ".1f")
            cells.append(f"{mean:{digits}}" + (f" ± {error:{precise}}" if len(runs) > 1 else ""))
        lines.append([name, runs[0]["parameters"], *cells])
    return markdown(["variant", "parameters", *columns.values()], lines)
