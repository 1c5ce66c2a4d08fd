"""Pictures of exact spike times, in delaykit's visual language."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from delaykit.errors import ShapeError
from delaykit.plotting import CATEGORIES, GREY, INK, axes
from delaykit_timing.events import Events
from delaykit_timing.layer import MultiSpikeLIF
from delaykit_timing.traces import membrane_trace

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import ArrayLike


def membrane(
    layer: MultiSpikeLIF, events: Events, neurons: Sequence[int], ax: Axes | None = None, *, sample: int = 0,
    unit: str = "", points: int = 1500,
) -> Axes:  # fmt: skip
    """Draw potentials with exact spike times as marks at the threshold.

    Args:
        layer: spiking layer or readout.
        events: its input.
        neurons: which neurons, at most seven.
        ax: where to draw; None: a new figure.
        sample: row of the batch.
        unit: unit of the times, for the axis.
        points: number of points of a line.

    Returns:
        The axes.
    """
    if not 1 <= len(neurons) <= len(CATEGORIES):
        fix = "draw a few neurons at a time"
        raise ShapeError("membrane", f"{len(neurons)} neurons", f"1 to {len(CATEGORIES)}", fix)
    ax = axes(ax)
    end, threshold = layer.dynamics.end, layer.dynamics.threshold
    for color, neuron in zip(CATEGORIES, neurons, strict=False):
        _, spikes = membrane_trace(layer, events, sample, neuron, torch.zeros(1))
        # a spike's own time twice: just before the reset and just after it
        when = (
            torch.cat([torch.linspace(0, end, points, dtype=torch.float64), spikes - 1e-9 * end, spikes]).sort().values
        )
        v, _ = membrane_trace(layer, events, sample, neuron, when)
        ax.plot(when, v, color=color, linewidth=1.4, label=f"neuron {neuron}")
        ax.plot(spikes, [threshold] * len(spikes), "v", color=color, markersize=7, markeredgewidth=0)
    if np.isfinite(threshold):
        ax.axhline(threshold, color=GREY, linestyle=":", linewidth=1.4)
        ax.annotate(
            "threshold", (0, threshold), xytext=(4, -11), textcoords="offset points", color=GREY, fontsize=9,
        )  # fmt: skip
    ax.set(xlim=(0, end), xlabel=f"time ({unit})" if unit else "time", ylabel="potential")
    if len(neurons) > 1:
        ax.legend(loc="best")
    return ax


def event_raster(events: Events, ax: Axes | None = None, *, sample: int = 0, unit: str = "", color: str = INK) -> Axes:
    """Draw the events of one sample as marks.

    Args:
        events: spikes.
        ax: where to draw; None: a new figure.
        sample: row of the batch.
        unit: unit of the times, for the axis.
        color: colour of the marks.

    Returns:
        The axes.
    """
    ax = axes(ax)
    filled = events.mask[sample]
    size = min(60.0, max(2.0, 2500.0 / max(events.size, 1)))
    times = events.times[sample, filled].detach()
    ax.scatter(times, events.neurons[sample, filled], s=size, c=color, marker="|", linewidths=1.2)
    ax.set(ylim=(-0.7, events.size - 0.3), xlabel=f"time ({unit})" if unit else "time", ylabel="neuron")
    ax.grid(False)
    return ax


def spike_histogram(shares: ArrayLike, ax: Axes | None = None, *, label: str | None = None) -> Axes:
    """Draw how many neurons fire how often.

    Args:
        shares: share of neurons that fire 0, 1, 2, ... times, as ``torch.bincount(counts) / counts.numel()`` gives it.
        ax: where to draw; None: a new figure; several calls may share one.
        label: legend.

    Returns:
        The axes.
    """
    ax = axes(ax)
    values = 100 * np.asarray(shares, dtype=float)
    color = CATEGORIES[sum(1 for line in ax.lines) % len(CATEGORIES)]
    ax.plot(np.arange(len(values)), values, "-o", color=color, markersize=4, linewidth=1.4, label=label)
    ax.set(xlabel="spikes of a neuron in a sample", ylabel="share of neurons (%)")
    ax.autoscale(axis="y")  # an earlier line may have fixed the top
    ax.set_ylim(bottom=0)
    ax.locator_params(axis="x", integer=True)
    if label is not None:
        ax.legend()
    return ax


def accuracy_against_tau(results: Mapping[str, Mapping[float, Sequence[float]]], ax: Axes | None = None) -> Axes:
    """Draw test accuracy over the synaptic time constant: each seed a dot, the means a line.

    Args:
        results: for each method, for each tau, the accuracies of the seeds, as fractions.
        ax: where to draw; None: a new figure.

    Returns:
        The axes.
    """
    ax = axes(ax)
    taus: set[float] = set()
    for color, (name, runs) in zip(CATEGORIES, results.items(), strict=False):
        where = sorted(runs)
        taus |= set(where)
        for tau in where:
            ax.plot([tau] * len(runs[tau]), 100 * np.asarray(runs[tau]), "o", color=color, markersize=5, alpha=0.7)
        ax.plot(where, [100 * float(np.mean(runs[tau])) for tau in where], color=color, label=name)
    ax.set_xscale("log", base=2)
    ax.set_xticks(sorted(taus), [f"{tau:g}" for tau in sorted(taus)])
    ax.set(xlabel="synaptic time constant (length of the window)", ylabel="test accuracy (%)")
    ax.minorticks_off()
    ax.legend()
    return ax
