"""Pictures of space: who is where and came from where, how late that makes a spike, and which channels are heard."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from delaykit import ConfigError, checks, plotting
from delaykit.plotting import CATEGORIES, COLOUR_MAPS, GREY, INK, colours
from delaykit_spatial.analysis import BIN_MS, channel_order, kept_by_latency
from delaykit_spatial.history import PositionHistory
from delaykit_spatial.report import SpatialLink, links, populations

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from torch import Tensor, nn

MOST_LINES = 150  # the strongest connections; more would be a grey cloud
MOST_TICKS = 11
MARKERS = "osD^v<>"
RISE = 0.4  # of the way from row to row: one-dimensional trails climb, or they would hide behind each other


@checks.annotated
def position_map(
    net: nn.Module, ax: Axes | None = None, *, history: PositionHistory | None = None, connections: int = MOST_LINES,
    axes: tuple[int, ...] | None = None, unit: str = "ms",
) -> Axes:  # fmt: skip
    """Draw where neurons are, how they came there, and their strongest connections in the colour of their delay.

    Args:
        net: a net with spatial connections, 1 or more dims.
        ax: where to draw, with ``projection="3d"`` for three coordinates; None: a new figure.
        history: snapshots; each neuron trails a line from where it was at first.
        connections: how many of the strongest connections to draw, over all of the net; 0 for none.
        axes: coordinates to show; default: the first two or three. One-dimensional populations are drawn in rows,
            to which their trails climb from below.
        unit: of the positions.

    Returns:
        The axes.
    """
    import numpy as np

    places = {name: values.detach().double().cpu().numpy() for name, values in populations(net).items()}
    if not places:
        fix = "wrap with Spatial(dims=2)"
        raise ConfigError("position_map", "no positions", "connections with 0 < dims < inf", fix)
    dims = max(values.shape[1] for values in places.values())
    shown = axes or tuple(range(min(dims, 3)))
    flat = len(shown) == 1
    plot: Any = _axes(ax, len(shown))
    if len(shown) == 3 and not hasattr(plot, "set_zlabel"):
        fix = "make it with projection='3d', or leave ax out"
        raise ConfigError("position_map", "two-dimensional axes", "three-dimensional ones", fix)
    rows = {name: row for row, name in enumerate(places)}

    def view(values: Any, name: str) -> Any:
        columns = [values[..., k] if k < values.shape[-1] else np.zeros(values.shape[:-1]) for k in shown]
        return np.stack([*columns, np.full(values.shape[:-1], rows[name])] if flat else columns, -1)

    now = {name: view(values, name) for name, values in places.items()}
    _lines(net, plot, now, connections)
    for k, (color, (name, points)) in enumerate(zip(colours(len(now)), now.items(), strict=True)):
        if history is not None:
            trails = view(history.trajectories(name).numpy(), name)
            if flat:
                trails[..., 1] -= RISE * np.linspace(1.0, 0.0, len(trails))[:, None]
            for trail in np.swapaxes(trails, 0, 1):
                plot.plot(*trail.T, color=color, alpha=0.55, linewidth=1.0, zorder=2)
            plot.scatter(*trails[0].T, s=9, facecolors="white", edgecolors=color, linewidths=0.8, zorder=3)
        size = max(12.0, min(46.0, 1600.0 / len(points)))
        plot.scatter(*points.T, s=size, color=color, marker=MARKERS[k % len(MARKERS)], label=name, zorder=4,
                   edgecolors="white", linewidths=0.5)  # fmt: skip
    _label(plot, [f"{'xyz'[k] if k < 3 else f'x{k + 1}'} ({unit})" for k in shown], list(places) if flat else [])
    return plot


@checks.annotated
def delay_against_distance(net: nn.Module, site: str, ax: Axes | None = None, *, unit: str = "ms") -> Axes:
    """Mark every synapse at the distance of its neurons and its latency, in the colour of its weight.

    Straight paths are on one line; tortuous ones between it and 1 + eps times as late.

    Args:
        net: a net with spatial connections.
        site: name of the connection.
        ax: where to draw; None: a new figure.
        unit: of the positions.

    Returns:
        The axes.
    """
    import torch

    ax = _axes(ax)
    found = links(net)
    if site not in found or not found[site].delay.positions():
        expected = f"one of {', '.join(name for name, link in found.items() if link.delay.positions())}"
        raise ConfigError("delay_against_distance", f"connection {site!r}", expected, "name one of them")
    link = found[site]
    with torch.no_grad():
        straight = link.delay.distances()[link.synapses].cpu()
        late = link.delay.delays_ms()[link.synapses].cpu()
        weight = link.weight[link.synapses].cpu()
    order = weight.abs().argsort()
    bound = float(weight.abs().max()) or 1.0
    dots = ax.scatter(
        straight[order], late[order], c=weight[order], cmap=COLOUR_MAPS["signed"], vmin=-bound, vmax=bound, s=14,
        edgecolors=GREY, linewidths=0.2,
    )  # fmt: skip
    ax.figure.colorbar(dots, ax=ax, label="weight")
    ax.set(xlabel=f"distance ({unit})", ylabel="total latency (ms)", xlim=(0, None), ylim=(0, None), title=site)
    return ax


@checks.annotated
def channel_matrix(weight: Tensor, ax: Axes | None = None, *, channel: str = "input channel") -> Axes:
    """Draw a weight matrix with channels in their order and neurons by the channel they listen to.

    Args:
        weight: ``(post, channel)``.
        ax: where to draw; None: a new figure.
        channel: what the horizontal axis counts.

    Returns:
        The axes.
    """
    ax = _axes(ax)
    ordered = weight.detach()[channel_order(weight)].cpu()
    bound = float(ordered.abs().max()) or 1.0
    image = ax.imshow(
        ordered.numpy(), cmap=COLOUR_MAPS["signed"], vmin=-bound, vmax=bound, aspect="auto", interpolation="nearest",
        origin="lower",
    )  # fmt: skip
    ax.figure.colorbar(image, ax=ax, label="weight")
    ax.set(xlabel=channel, ylabel="neuron, by preferred channel")
    ax.grid(False)
    return ax


@checks.annotated
def kept_fraction(delays_ms: Tensor, kept: Tensor, ax: Axes | None = None, *, width_ms: float = BIN_MS) -> Axes:
    """Draw the share of synapses kept in each bin of delay, and over all as a line.

    Args:
        delays_ms: total latencies.
        kept: which synapses are left, bool.
        ax: where to draw; None: a new figure.
        width_ms: width of a bin.

    Returns:
        The axes.
    """
    ax = _axes(ax)
    edges, share = kept_by_latency(delays_ms, kept, width_ms)
    ax.bar(edges[:-1].tolist(), (100 * share.nan_to_num(0)).tolist(), width=0.94 * width_ms, align="edge",
           color=CATEGORIES[2], alpha=0.8)  # fmt: skip
    ax.axhline(100 * float(kept.double().mean()), color=INK, linestyle=":", linewidth=1.4, label="all synapses")
    ax.set(xlabel="total latency (ms)", ylabel="synapses kept (%)", xlim=(0, float(edges[-1])))
    ax.set_xticks(edges[:: math.ceil(len(edges) / MOST_TICKS)].tolist())
    ax.set_ylim(0, 1.25 * ax.get_ylim()[1])  # room for the legend
    ax.legend(loc="upper right")
    return ax


def _lines(net: nn.Module, ax: Any, now: dict[str, Any], most: int) -> None:
    """Draw the strongest connections, coloured by delay, below everything else."""
    import numpy as np
    from matplotlib.collections import LineCollection

    rows: list[tuple[int, float, Any, Any]] = []
    for link in links(net).values():
        if link.delay.positions():
            rows += _strongest(link, now, most)
    rows = sorted(rows, key=lambda row: row[0])[:most]  # by turns the strongest of each connection
    if not rows:
        return
    late = np.array([row[1] for row in rows])
    segments = [np.stack(row[2:]) for row in rows]
    style: dict[str, Any] = {"cmap": COLOUR_MAPS["delay"], "array": late, "linewidths": 0.9, "alpha": 0.6, "zorder": 1}
    if segments[0].shape[1] == 3:
        from mpl_toolkits.mplot3d.art3d import Line3DCollection  # type: ignore[import-untyped]

        lines = ax.add_collection3d(Line3DCollection(segments, **style))
    else:
        lines = ax.add_collection(LineCollection(segments, **style))
    label = f"total latency (ms), {len(rows)} strongest"
    ax.figure.colorbar(
        lines, ax=ax, label=label, **({"pad": 0.12, "shrink": 0.75} if hasattr(ax, "set_zlabel") else {})
    )


def _strongest(link: SpatialLink, now: dict[str, Any], most: int) -> list[tuple[int, float, Any, Any]]:
    """List the strongest synapses of a connection, (rank, latency, from, to); of equal ones a random choice."""
    import torch

    at = link.synapses.nonzero()[torch.randperm(int(link.synapses.sum()), generator=torch.Generator().manual_seed(0))]
    weight, late = link.weight.detach().abs(), link.delay.delays_ms().detach().expand(link.weight.shape)
    at = at[weight[at[:, 0], at[:, 1]].argsort(descending=True, stable=True)[:most]]
    return [
        (rank, float(late[j, i]), now[link.delay.pre][i], now[link.delay.post][j])
        for rank, (j, i) in enumerate(at.tolist())
    ]


def _label(ax: Any, names: list[str], rows: list[str]) -> None:
    ax.set_xlabel(names[0])
    if rows:
        ax.set_yticks(range(len(rows)), rows)
        ax.set_ylim(-0.6, len(rows) - 0.4)
        ax.margins(x=0.05)
        ax.grid(axis="y", visible=False)
        return
    ax.set_ylabel(names[1])
    if len(names) == 3:
        ax.set_zlabel(names[2])
    else:
        ax.set_aspect("equal", adjustable="datalim")
        ax.margins(0.06)
    ax.legend(loc="best")


def _axes(ax: Axes | None, coordinates: int = 1) -> Axes:
    size = (6.4, {1: 3.4, 2: 4.8}.get(coordinates, 5.2))
    kind = {"projection": "3d"} if coordinates == 3 else {}
    return plotting.axes(ax, size, subplot_kw=kind, layout="constrained")
