"""Pictures of the speech experiment: learning curves, robustness, conditions side by side, time constants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import pyplot

from delaykit.plotting import CATEGORIES, GREY, style
from delaykit_lab.data.robustness import DELETIONS

Found = Mapping[str, Sequence[Mapping[str, Any]]]


def robustness(found: Found, title: str, path: Path) -> None:
    """Draw the two robustness curves (figures 4C and 4F): the mean over seeds, in a band from the worst to the best."""
    with style():
        _, axes = pyplot.subplots(1, 2, figsize=(9, 3.5), sharey=True)
        for color, (model, runs) in zip(CATEGORIES, found.items(), strict=False):
            for ax, key in zip(axes, ("deletion", "warp"), strict=True):
                at = [float(x) for x in runs[0][key]]
                values = 100 * np.array([list(r[key].values()) for r in runs])
                if key == "deletion":
                    at, values = [0.005, *at], np.column_stack([[100 * r["test"] for r in runs], values])
                ax.plot(at, values.mean(0), "-o", color=color, label=model, markersize=4)
                ax.fill_between(at, values.min(0), values.max(0), color=color, alpha=0.13, linewidth=0)
        axes[0].set(
            xscale="log", xlabel="share of spikes lost (leftmost: none)", ylabel="test accuracy (%)", title=title
        )
        axes[1].set(xlabel="log2 of the time warp (> 0: slower)")
        axes[0].set_xticks([0.005, *DELETIONS], ["0", *(f"{p:g}" for p in DELETIONS)], fontsize=8)
        axes[0].minorticks_off()
        axes[0].set_ylim(bottom=0)
        axes[0].legend(loc="lower left")
        pyplot.savefig(path)
        pyplot.close()


def learning_curves(found: Found, title: str, path: Path) -> None:
    """Draw the accuracy on held-out samples over the epochs (figure 4A): the mean over seeds, worst to best."""
    with style():
        ax = pyplot.subplots(figsize=(6.4, 3.6))[1]
        for color, (model, runs) in zip(CATEGORIES, found.items(), strict=False):
            curves = 100 * np.array([one["curve"] for one in runs])
            epochs = np.arange(1, curves.shape[1] + 1)
            ax.plot(epochs, curves.mean(0), color=color, label=model)
            ax.fill_between(epochs, curves.min(0), curves.max(0), color=color, alpha=0.13, linewidth=0)
        ax.set(xlabel="epoch", ylabel="accuracy, held-out samples (%)")
        ax.set_title(title, fontsize=9)
        ax.legend(fontsize=9)
        ax.figure.savefig(path)
        pyplot.close(ax.figure)


def conditions(found: Found, title: str, path: Path) -> None:
    """Draw bars for no disturbance, 32 % of spikes lost, and time warped by 2^0.25 (figure A3)."""
    names = ("undisturbed", "32 % lost", "warp +0.25")
    with style():
        ax = pyplot.subplots(figsize=(7.2, 3.6))[1]
        for k, (color, (model, runs)) in enumerate(zip(CATEGORIES, found.items(), strict=False)):
            values = 100 * np.array([[r["test"], r["deletion"]["0.32"], nearest(r["warp"], 0.25)] for r in runs])
            at = np.arange(3) + (k - (len(found) - 1) / 2) * 0.8 / len(found)
            error = values.std(0, ddof=1) if len(values) > 1 else None
            ax.bar(at, values.mean(0), 0.72 / len(found), yerr=error, color=color, label=model, ecolor=GREY)
        ax.set(xticks=range(3), xticklabels=names, ylabel="test accuracy (%)")
        ax.set_title(title, fontsize=9)
        ax.grid(axis="x", visible=False)
        ax.legend(fontsize=8, ncols=2)
        ax.figure.savefig(path)
        pyplot.close(ax.figure)


def nearest(warps: Mapping[str, float], wanted: float) -> float:
    """Return the accuracy at the warp that is nearest to the one wanted; a full run draws its warps."""
    return warps[min(warps, key=lambda log: abs(float(log) - wanted))]


def time_constants(one: Mapping[str, Any], title: str, path: Path) -> None:
    """Draw the time constants of every kind of connection before and after (figures 4D, the readout's, and A4).

    Args:
        one: result with ``tau_before`` and ``tau_after``: counts in bins of 2 ms by connection.
        title: above them.
        path: of the picture.
    """
    kinds = list(one["tau_after"])
    with style():
        figure, axes = pyplot.subplots(1, len(kinds), figsize=(3.2 * len(kinds), 3.2), squeeze=False)
        for ax, kind in zip(axes[0], kinds, strict=True):
            edges = np.arange(51) * 2.0
            for key, color, label in (("tau_before", GREY, "before"), ("tau_after", CATEGORIES[0], "after")):
                counts = np.array(one[key][kind], dtype=float)
                ax.stairs(100 * counts / counts.sum(), edges, color=color, label=label, linewidth=1.8)
            over = 100 * sum(one["tau_after"][kind][10:]) / sum(one["tau_after"][kind])
            ax.set(title=kind, xlabel="time constant (ms; last: 98 or more)")
            ax.annotate(f"{over:.1f} % at 20 ms or more", (0.98, 0.8), xycoords="axes fraction", ha="right", fontsize=8)
        axes[0][0].set_ylabel("synapses (%)")
        axes[0][0].legend(fontsize=9)
        figure.suptitle(title, fontsize=9)
        figure.savefig(path)
        pyplot.close(figure)
