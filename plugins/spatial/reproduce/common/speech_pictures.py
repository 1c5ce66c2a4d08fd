"""Pictures of the networks for speech: extra length of paths, and when neurons fire that the readout hears."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib import pyplot

from delaykit.plotting import CATEGORIES


def tortuous(runs: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Draw how many synapses use how much of the extra length that their paths may have (figure S4 A).

    Args:
        runs: by name; each has ``used_of_extra``, shares of synapses in ten bins.
        path: of the picture.
    """
    ax = pyplot.subplots(figsize=(6.4, 3.6))[1]
    for color, (name, one) in zip(CATEGORIES, runs.items(), strict=False):
        shares = one["used_of_extra"]
        ax.step([k / 10 for k in range(11)], [100 * shares[0], *(100 * x for x in shares)], color=color, label=name)
    ax.set(xlabel="share of the extra length that is used (first weights: 0.5)", ylabel="synapses (%)", xlim=(0, 1))
    ax.legend(fontsize=9)
    ax.figure.savefig(path)


def stages(runs: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Draw the rates over time of the neurons that the readout hears most and least (figure S5 B and C).

    Args:
        runs: by name; each has ``stages``: rates in Hz, in equal bins, for each group.
        path: of the picture.
    """
    figure, axes = pyplot.subplots(1, len(runs), figsize=(4.6 * len(runs), 3.4), sharey=True, squeeze=False)
    for ax, (name, one) in zip(axes[0], runs.items(), strict=True):
        for color, (group, rates) in zip(CATEGORIES, one["stages"].items(), strict=False):
            at = [(k + 0.5) / len(rates) for k in range(len(rates))]
            ax.plot(at, rates, color=color, label=f"{group} by the readout")
        ax.set(xlabel="time (share of a sample)", title=f"{name}: validation {100 * one['validation']:.1f} %")
    axes[0][0].set_ylabel("rate (Hz)")
    axes[0][0].legend(fontsize=9)
    figure.savefig(path)
