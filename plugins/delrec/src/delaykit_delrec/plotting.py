"""Pictures of training: where delays go, how far they move, how many sit at a bound, how the spread narrows."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from delaykit import checks
from delaykit.plotting import COLOUR_MAPS, axes, colours
from delaykit_delrec.history import DelayHistory

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@checks.annotated
def delay_evolution(history: DelayHistory, site: str, ax: Axes | None = None, *, bins: int = 30) -> Axes:
    """Draw the histogram of one connection's delays, epoch by epoch, as a column of an image.

    Args:
        history: snapshots.
        site: the connection's name.
        ax: where to draw; None: a new figure.
        bins: number of bins from 0 to the largest delay.

    Returns:
        The axes.
    """
    import torch

    checks.whole("delay_evolution bins", bins, least=1)
    ax = axes(ax)
    snapshots = history.of(site)
    top = history.longest.get(site, max(float(d.max()) for d in snapshots)) or 1.0
    counts = torch.stack([torch.histc(d.float(), bins, 0.0, top) for d in snapshots], 1)
    image = ax.imshow(
        counts.numpy(), origin="lower", aspect="auto", cmap=COLOUR_MAPS["count"], interpolation="nearest",
        extent=(-0.5, len(snapshots) - 0.5, 0.0, top),
    )  # fmt: skip
    ax.figure.colorbar(image, ax=ax, label="number of delays")
    ax.set(xlabel="epoch", ylabel="delay (steps)")
    ax.grid(False)
    return ax


@checks.annotated
def spread_curve(history: DelayHistory, ax: Axes | None = None) -> Axes:
    """Draw the mean spread of every connection over the epochs, on a logarithmic axis.

    Args:
        history: snapshots.
        ax: where to draw; None: a new figure.

    Returns:
        The axes.
    """
    ax = _curves(history, lambda site: history.spreads[site], ax, first=0)
    if any(value > 0 for values in history.spreads.values() for value in values):
        ax.set_yscale("log")
    ax.set_ylabel("spread (steps)")
    return ax


@checks.annotated
def movement_curve(history: DelayHistory, ax: Axes | None = None) -> Axes:
    """Draw the mean distance that a delay moves in each epoch.

    Args:
        history: snapshots.
        ax: where to draw; None: a new figure.

    Returns:
        The axes.
    """
    ax = _curves(history, history.movement, ax, first=1)
    ax.set(ylabel="mean |Δd| per epoch (steps)", ylim=(0, None))
    return ax


@checks.annotated
def bounds_curve(history: DelayHistory, ax: Axes | None = None) -> Axes:
    """Draw the share of delays that sit at 0 or at the maximum.

    Args:
        history: snapshots.
        ax: where to draw; None: a new figure.

    Returns:
        The axes.
    """
    ax = _curves(history, lambda site: [100 * share for share in history.at_bounds(site)], ax, first=0)
    ax.set(ylabel="delays at a bound (%)", ylim=(0, None))
    return ax


def _curves(history: DelayHistory, values: Callable[[str], list[float]], ax: Axes | None, first: int) -> Axes:
    ax = axes(ax)
    for color, site in zip(colours(len(history.delays)), history.delays, strict=True):
        line = values(site)
        ax.plot(range(first, first + len(line)), line, color=color, label=site)
    ax.set_xlabel("epoch")
    ax.legend()
    return ax
