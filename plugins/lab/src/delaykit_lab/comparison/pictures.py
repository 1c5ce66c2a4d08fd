"""Pictures of a comparison: accuracy of each row, and accuracy against what it costs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from delaykit import plotting

COSTS = (
    ("parameters", "parameters"), ("spikes", "spikes a sample"),
    ("synaptic_operations", "synaptic operations a sample"), ("seconds", "training time (CPU s, or s on a GPU)"),
)  # fmt: skip


def draw_comparison(results: dict[str, Any], timing: dict[str, Any], folder: Path) -> list[Path]:
    """Write ``accuracy.png`` and ``costs.png``.

    Args:
        results: of a comparison.
        timing: seconds of each run.
        folder: where to write.

    Returns:
        The files.
    """
    from matplotlib.figure import Figure

    rows = [row for row in results["rows"] if not any(run["failed"] for run in row["runs"])]
    with plotting.style():
        figure = Figure(figsize=(8, 1.4 + 0.42 * len(rows)), layout="constrained")
        ax = figure.subplots()
        plotting.accuracies({r["name"]: [run["test"] for run in r["runs"]] for r in rows}, ax, chance=results["chance"])
        ax.set_title(f"{results['samples']['test']} test samples, {len(rows[0]['runs'])} seeds, standard error")
        figure.savefig(folder / "accuracy.png")
        figure = Figure(figsize=(10, 7), layout="constrained")
        for ax, (name, label) in zip(np.ravel(figure.subplots(2, 2)), COSTS, strict=True):
            _against(ax, rows, name, timing)
            ax.set(xlabel=label, ylabel="test accuracy (%)")
        handles, names = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside right upper")
        figure.savefig(folder / "costs.png")
    return [folder / "accuracy.png", folder / "costs.png"]


def _against(ax: Any, rows: list[dict[str, Any]], name: str, timing: dict[str, Any]) -> None:
    for index, row in enumerate(rows):
        if name == "seconds":
            costs = [timing[f"{row['name']}, seed {seed}"] for seed in range(len(row["runs"]))]
        else:
            costs = [run[name] for run in row["runs"]]
        if any(value is None for value in costs):
            continue
        accuracy = 100 * np.array([run["test"] for run in row["runs"]])
        colour = plotting.CATEGORIES[index % len(plotting.CATEGORIES)]
        marker = "os^Dv*P"[index // len(plotting.CATEGORIES) % 7]
        ax.scatter(costs, accuracy, s=12, color=colour, alpha=0.4, marker=marker)
        ax.scatter(np.mean(costs), accuracy.mean(), s=60, color=colour, marker=marker, label=row["name"])
    ax.margins(x=0.08)
    ax.set_xlim(left=0)
