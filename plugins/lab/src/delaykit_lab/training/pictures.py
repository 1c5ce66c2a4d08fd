"""Pictures of a training: learning curves of all seeds, and the delays before and after."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from delaykit import plotting


def draw(records: Sequence[dict[str, Any]], folder: Path) -> list[Path]:
    """Write ``learning.png`` and, where there are delays, ``delays.png``.

    Args:
        records: of one configuration, one a seed.
        folder: where to write.

    Returns:
        The files.
    """
    from matplotlib.figure import Figure

    paths = []
    with plotting.style():
        figure = Figure(figsize=(10, 3.6), layout="constrained")
        left, right = figure.subplots(1, 2)
        for ax, quantity, percent in ((left, "accuracy", True), (right, "loss", False)):
            curves = {part: [[e[f"{part}_{quantity}"] for e in r["history"]] for r in records]
                      for part in ("train", "validation")}  # fmt: skip
            chance = records[0]["chance"] if percent else None
            label = quantity if percent else f"{quantity} (nats)"
            plotting.learning_curves({k: np.array(v) for k, v in curves.items()}, ax, chance=chance, quantity=label,
                                     percent=percent)  # fmt: skip
        left.set_title(f"{len(records)} seed(s): line mean, band all")
        paths.append(folder / "learning.png")
        figure.savefig(paths[-1])
        sites = list(records[0]["delays"]["after"])
        if sites:
            figure = Figure(figsize=(5 * len(sites), 3.6), layout="constrained")
            for ax, site in zip(np.ravel(figure.subplots(1, len(sites), squeeze=False)), sites, strict=True):
                before, after = (
                    np.concatenate([r["delays"][when][site] for r in records]) for when in ("before", "after")
                )
                plotting.delay_histogram(after, ax, before=before, dt_ms=records[0]["step_ms"])
                ax.set_title(f"{site}: moved by {abs(after - before).mean():.1f} steps on average")
            paths.append(folder / "delays.png")
            figure.savefig(paths[-1])
    return paths
