"""Pictures of the reproductions: accuracy against dims, and what a network gets wrong."""

from __future__ import annotations

import statistics
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from matplotlib import pyplot
from matplotlib.ticker import LogLocator
from torch import Tensor

from delaykit.plotting import CATEGORIES, COLOUR_MAPS, GREY, INK
from delaykit_lab.tasks.yin_yang import NAMES


def headed(figure: Any, title: str) -> Any:
    """Write a title over a figure, in as many lines as its width asks for, and return it."""
    figure.suptitle(textwrap.fill(title, int(13 * figure.get_figwidth())), fontsize=10, x=0.02, ha="left")
    return figure


def against_dims(values: Mapping[str, Sequence[float]], *, chance: float | None = None) -> Any:
    """Draw the test accuracy of each network, by dims: every seed a dot, the median a line.

    Args:
        values: for each network, ``2-D`` or ``2-D, frozen``, the accuracy of each seed, as fractions.
        chance: chance level, as a fraction, for the label.

    Returns:
        The axes of a new figure.
    """
    values = dict(sorted(values.items(), key=lambda one: float(one[0].partition("-D")[0])))
    ax = pyplot.subplots(figsize=(max(6.4, 1.6 + 0.95 * len(values)), 3.8))[1]
    for column, (color, runs) in enumerate(zip(CATEGORIES * 2, values.values(), strict=False)):
        percent = [100 * run for run in runs]
        middle = statistics.median(percent)
        ax.plot([column - 0.3, column + 0.3], [middle, middle], color=color, linewidth=2.5)
        ax.plot([column] * len(percent), percent, "o", color=color, markersize=6, alpha=0.7, markeredgewidth=0)
        ax.annotate(f"{middle:.1f}", (column + 0.34, middle), va="center", color=INK, fontsize=9)
    ax.set(xticks=range(len(values)), xticklabels=[name.replace(", ", "\n") for name in values])
    ax.set_xlim(-0.6, len(values) - 0.2)
    ax.set_ylabel("test accuracy (%)" + ("" if chance is None else f"; chance {100 * chance:.0f} %"))
    ax.grid(axis="x", visible=False)
    return ax


def against_size(rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> Any:
    """Draw the mean test accuracy of each kind of network against its hidden neurons, and against its parameters.

    Args:
        rows: results by name, ``kind, neurons``; each has ``test`` and ``parameters``.

    Returns:
        The figure.
    """
    lines: dict[str, list[tuple[int, int, float]]] = {}
    for name, runs in rows.items():
        kind, _, hidden = name.rpartition(", ")
        mean = 100 * statistics.mean(run["test"] for run in runs)
        lines.setdefault(kind, []).append((int(hidden), runs[0]["parameters"], mean))
    figure, axes = pyplot.subplots(1, 2, figsize=(9.6, 3.8), sharey=True)
    for color, (kind, points) in zip(CATEGORIES * 2, lines.items(), strict=False):
        for ax, column in zip(axes, (0, 1), strict=True):
            ax.plot([p[column] for p in sorted(points)], [p[2] for p in sorted(points)], "o-", color=color, label=kind)
    sizes = sorted({point[0] for points in lines.values() for point in points})
    axes[0].set(xlabel="hidden neurons", ylabel="test accuracy (%)", xticks=sizes)
    axes[1].set(xlabel="parameters", xscale="log")
    axes[1].xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes[1].xaxis.set_major_formatter(lambda count, _: f"{count:.0f}")
    axes[1].minorticks_off()
    axes[0].legend(fontsize=9)
    return figure


def mistakes(places: Tensor, labels: Tensor, answers: Mapping[str, Tensor]) -> Any:
    """Draw the figure's test points, mistaken ones as crosses in the colour of the answer, over confusion matrices.

    Args:
        places: (sample, 2).
        labels: (sample,).
        answers: for each network the class that each point is taken for, -1 for none.

    Returns:
        The figure.
    """
    figure, axes = pyplot.subplots(
        2, len(answers), figsize=(2.7 * len(answers), 5.2), squeeze=False, height_ratios=(1.2, 1)
    )
    for (name, given), above, below in zip(answers.items(), axes[0], axes[1], strict=True):
        right = given == labels
        for k, label in enumerate(NAMES):
            known, taken = right & (labels == k), ~right & (given == k)
            above.plot(*places[known].T, ".", color=CATEGORIES[k], markersize=2.5, alpha=0.35)
            above.plot(*places[taken].T, "x", color=CATEGORIES[k], markersize=6, markeredgewidth=1.6, label=label)
        above.plot(*places[given < 0].T, "x", color=GREY, markersize=6, markeredgewidth=1.6, label="no answer")
        above.set_title(f"{name}: {100 * right.double().mean():.1f} %")
        above.set(aspect="equal", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))
        above.set(xlabel="x", ylabel="y" if above is axes[0][0] else "")
        _confusion(below, labels, given)
    axes[1][0].set_ylabel("class")
    handles, names = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, [f"taken for {n}" if n in NAMES else n for n in names], loc="outside lower center", ncol=2)
    return figure


def _confusion(ax: Any, labels: Tensor, given: Tensor) -> None:
    counts = torch.zeros(3, 4, dtype=torch.long)
    counts.index_put_((labels, torch.where(given < 0, 3, given)), torch.ones_like(labels), accumulate=True)
    share = counts / counts.sum(1, keepdim=True)
    ax.imshow(share, cmap=COLOUR_MAPS["count"], vmin=0, vmax=1)
    for row in range(3):
        for column in range(4):
            ink = "white" if share[row, column] > 0.6 else INK
            ax.text(column, row, int(counts[row, column]), ha="center", va="center", color=ink, fontsize=9)
    ax.set(xticks=range(4), xticklabels=[*NAMES, "none"], yticks=range(3), yticklabels=NAMES, xlabel="answer")
    ax.grid(False)
