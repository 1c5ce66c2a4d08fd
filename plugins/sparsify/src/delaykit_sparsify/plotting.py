"""Pictures of sparse networks, in delaykit's visual language."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from delaykit.plotting import CATEGORIES, GREY, INK, axes, colours
from delaykit_sparsify.graphs import Connectivity, kept_by_delay

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def degree_histogram(graph: Connectivity, ax: Axes | None = None) -> Axes:
    """Count neurons by their number of kept inputs and outputs.

    Args:
        graph: what :func:`~delaykit_sparsify.connectivity` returned for one connection.
        ax: where to draw; None: a new figure.

    Returns:
        The axes.
    """
    ax = axes(ax)
    top = int(max(graph.inputs.max(), graph.outputs.max())) + 1
    edges = torch.linspace(-0.5, top - 0.5, min(top, 30) + 1).tolist()
    for degree, label, color in ((graph.inputs, "inputs", CATEGORIES[0]), (graph.outputs, "outputs", CATEGORIES[1])):
        ax.hist(degree.tolist(), bins=edges, label=label, color=color, alpha=0.6)
    ax.set(xlabel="kept synapses of a neuron", ylabel="neurons", title=graph.name)
    ax.legend()
    return ax


def kept_fraction(
    delays: Tensor, kept: Tensor, ax: Axes | None = None, *, bins: int = 12, quantity: str = "delay (steps)"
) -> Axes:
    """Draw the fraction of synapses kept in each bin of delay (or of distance), with the overall fraction as a line.

    Args:
        delays: delay of every synapse.
        kept: which synapses are kept, bool.
        ax: where to draw; None: a new figure.
        bins: number of bins.
        quantity: what the horizontal axis shows.

    Returns:
        The axes.
    """
    ax = axes(ax)
    edges, fraction = kept_by_delay(delays, kept, bins)
    ax.bar(
        edges[:-1].tolist(),
        (100 * fraction.nan_to_num(0)).tolist(),
        width=edges.diff().tolist(),
        align="edge",
        color=CATEGORIES[2],
        alpha=0.8,
    )
    ax.axhline(100 * float(kept.double().mean()), color=GREY, linestyle=":", linewidth=1.4, label="all synapses")
    ax.set(xlabel=quantity, ylabel="synapses kept (%)", xlim=(0, float(edges[-1])))
    ax.set_ylim(0, 1.3 * ax.get_ylim()[1])  # room for the legend
    ax.legend()
    return ax


def delay_against_distance(distances: Tensor, delays: Tensor, kept: Tensor, ax: Axes | None = None) -> Axes:
    """Mark every kept synapse at the distance of its two neurons and at its delay.

    Args:
        distances: ``(post, pre)``, in any unit.
        delays: delays in steps that broadcast to ``(post, pre)``.
        kept: ``(post, pre)``, bool.
        ax: where to draw; None: a new figure.

    Returns:
        The axes.
    """
    ax = axes(ax)
    ax.scatter(distances[kept], delays.detach().expand(kept.shape)[kept], s=6, color=INK, alpha=0.4, linewidths=0)
    ax.set(xlabel="distance", ylabel="delay (steps)", xlim=(0, None), ylim=(0, None))
    return ax


def accuracy_against_kept(
    values: Mapping[str, Mapping[float, Sequence[float]]], ax: Axes | None = None, *, chance: float | None = None
) -> Axes:
    """Draw accuracy against the fraction of synapses kept: one line a method, mean and standard deviation of seeds.

    Args:
        values: for each method and kept fraction the accuracies of all seeds, as fractions.
        ax: where to draw; None: a new figure.
        chance: chance level, as a fraction; None: not drawn.

    Returns:
        The axes.
    """
    ax = axes(ax)
    ticks = sorted({kept for lines in values.values() for kept in lines})
    for color, (name, lines) in zip(colours(len(values)), values.items(), strict=True):
        points = sorted(lines)
        runs = [100 * torch.tensor(list(lines[kept]), dtype=torch.float64) for kept in points]
        spread = [float(r.std()) if len(r) > 1 else 0.0 for r in runs]
        ax.errorbar(points, [float(r.mean()) for r in runs], yerr=spread, fmt="o-", color=color, label=name, capsize=2)
    if chance is not None:
        ax.axhline(100 * chance, color=GREY, linestyle=":", linewidth=1.4, label="chance")
    ax.set(xscale="log", xlabel="fraction of synapses kept", ylabel="accuracy (%)")
    ax.set_xticks(ticks, [f"{kept:g}" for kept in ticks])
    ax.minorticks_off()
    ax.legend()
    return ax
