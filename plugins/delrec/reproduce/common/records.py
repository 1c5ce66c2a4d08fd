"""Results of single runs as JSON, a table with standard errors, and a picture."""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any


def remembered(path: Path, settings: dict[str, Any], run: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return the record of a run that was already finished with these settings, or run it and record it."""
    if path.exists():
        record = json.loads(path.read_text())
        if record["settings"] == settings:
            return record["result"]
    result = run()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".new")
    temporary.write_text(json.dumps({"settings": settings, "result": result}, indent=1) + "\n")
    os.replace(temporary, path)
    return result


def mean_and_error(values: list[float]) -> tuple[float, float]:
    """Return the mean and its standard error over seeds."""
    error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else float("nan")
    return statistics.mean(values), error


def table(rows: dict[str, list[dict[str, Any]]], columns: dict[str, str], scale: float) -> str:
    """Write a Markdown table: a row for each variant, mean and standard error over its seeds."""
    lines = ["| variant | parameters | " + " | ".join(columns.values()) + " |", "|---|---|" + "---|" * len(columns)]
    for name, runs in rows.items():
        cells = []
        for key in columns:
            mean, error = mean_and_error([scale * run[key] for run in runs])
            cells.append(f"{mean:.3g} ± {error:.2g}" if scale == 1 else f"{mean:.1f} ± {error:.1f}")
        lines.append(f"| {name} | {runs[0]['parameters']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
