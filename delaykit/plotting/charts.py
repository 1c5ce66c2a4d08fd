"""Charts of spikes, delays, responses and results; each draws on ``ax`` and returns it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from delaykit.errors import ShapeError
from delaykit.plotting.theme import CATEGORIES, COLOUR_MAPS, GREY, INK, array, axes, colours

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import ArrayLike


def raster(
    spikes: ArrayLike, ax: Axes | None = None, *, dt_ms: float | None = None, channel: str = "channel", color: str = INK
) -> Axes:
    """Draw spikes as marks, time to the right; a mark grows darker with the number of spikes in it.

    Args:
        spikes: spikes or counts, ``(time, channel)``.
        ax: where to draw; None: a new figure.
        dt_ms: length of a step in ms; None: the time axis counts steps.
        channel: what the vertical axis counts.
        color: colour of the marks.

    Returns:
        The axes.

    Raises:
        ShapeError: ``spikes`` has not two dimensions.
    """
    from matplotlib.ticker import MaxNLocator

    counts = array(spikes, 2, "spikes", "(time, channel)")
    ax = axes(ax)
    step, unit = counts.nonzero()
    size = min(60.0, max(1.5, 2500.0 / max(counts.shape[1], counts.shape[0])))
    alpha = counts[step, unit] / counts.max() if len(step) else 1.0
    ax.scatter(step * (dt_ms or 1.0), unit, s=size, c=color, alpha=0.35 + 0.65 * alpha, marker="|", linewidths=1.4)
    ax.set(xlim=(-0.5 * (dt_ms or 1.0), (counts.shape[0] - 0.5) * (dt_ms or 1.0)), ylim=(-0.7, counts.shape[1] - 0.3))
    ax.set(xlabel=_time_label("time", dt_ms), ylabel=channel)
    ax.yaxis.set_major_locator(MaxNLocator("auto", integer=True))  # there is no channel 2.5
    ax.grid(False)
    return ax


def delay_histogram(
    delays: ArrayLike,
    ax: Axes | None = None,
    *,
    before: ArrayLike | None = None,
    max_delay: float | None = None,
    dt_ms: float | None = None,
    label: str = "after training",
    label_before: str = "before",
) -> Axes:
    """Count delays in bins of equal width, with the counts before training as an outline.

    Args:
        delays: delays in steps, any shape.
        ax: where to draw; None: a new figure.
        before: the same delays before training, any shape; None: not drawn.
        max_delay: right end of the axis in steps; None: the largest delay given.
        dt_ms: length of a step in ms; None: the axis counts steps.
        label: legend of ``delays``.
        label_before: legend of ``before``.

    Returns:
        The axes.

    Raises:
        ShapeError: there is no delay.
    """
    values = array(delays, None, "delays", "at least one delay").ravel()
    earlier = None if before is None else array(before, None, "before", "at least one delay").ravel()
    ax = axes(ax)
    scale = dt_ms or 1.0
    largest = max_delay or max(1.0, float(values.max()), 0.0 if earlier is None else float(earlier.max()))
    edges = [scale * edge for edge in _edges(largest)]
    color = CATEGORIES[0]
    ax.hist(values * scale, bins=edges, color=color, alpha=0.75, edgecolor="white", linewidth=0.6, label=label)
    if earlier is not None:
        ax.hist(earlier * scale, bins=edges, histtype="step", color=INK, linewidth=1.4, label=label_before)
        ax.set_ylim(top=1.25 * ax.get_ylim()[1])  # room for the legend
        ax.legend(loc="upper left", ncols=2)
    ax.set(xlabel=_time_label("delay", dt_ms), ylabel="number of delays", xlim=(edges[0], edges[-1]))
    ax.locator_params(axis="y", integer=True)
    ax.grid(axis="x", visible=False)
    return ax


def delay_pairs(
    before: ArrayLike,
    after: ArrayLike,
    ax: Axes | None = None,
    *,
    max_delay: float | None = None,
    dt_ms: float | None = None,
) -> Axes:
    """Mark each delay at its value before training (to the right) and after (upwards): on the line, it stayed.

    Args:
        before: delays in steps, any shape.
        after: the same delays later, of the same shape.
        ax: where to draw; None: a new figure.
        max_delay: end of both axes in steps; None: the largest delay given.
        dt_ms: length of a step in ms; None: the axes count steps.

    Returns:
        The axes.

    Raises:
        ShapeError: there is no delay, or the shapes differ.
    """
    one = array(before, None, "before", "at least one delay")
    other = array(after, None, "after", "at least one delay")
    if one.shape != other.shape:
        found, fix = f"shapes {one.shape} and {other.shape}", "compare the delays of one connection"
        raise ShapeError("delay_pairs", found, "the same delays, before and after", fix)
    ax = axes(ax, (4.2, 4.0))
    scale = dt_ms or 1.0
    end = scale * (max_delay or max(1.0, float(one.max()), float(other.max())))
    ax.plot([0, end], [0, end], color=INK, linestyle=":", linewidth=1.4, zorder=3, label="unmoved")
    ax.scatter(one.ravel() * scale, other.ravel() * scale, s=16, color=CATEGORIES[0], alpha=0.6, linewidths=0)
    margin = 0.04 * end
    ax.set(xlim=(-margin, end + margin), ylim=(-margin, end + margin), aspect="equal")
    ax.set(xlabel=_time_label("delay before training", dt_ms), ylabel=_time_label("delay after training", dt_ms))
    ax.legend(loc="upper left")
    return ax


def learning_curves(
    curves: Mapping[str, ArrayLike],
    ax: Axes | None = None,
    *,
    chance: float | None = None,
    quantity: str = "validation accuracy",
    percent: bool = True,
) -> Axes:
    """Draw one mean line per method over the epochs, in a band from the worst to the best seed.

    Args:
        curves: for each method its values, ``(seed, epoch)`` or ``(epoch,)``; accuracies as fractions.
        ax: where to draw; None: a new figure.
        chance: chance level, as a fraction; None: not drawn.
        quantity: what the vertical axis shows.
        percent: show fractions as per cent; False for losses.

    Returns:
        The axes.

    Raises:
        ShapeError: a curve has more than two dimensions.
    """
    import numpy as np

    ax = axes(ax)
    scale = 100.0 if percent else 1.0
    for color, (name, values) in zip(colours(len(curves)), curves.items(), strict=True):
        runs = np.atleast_2d(np.asarray(values, dtype=float)) * scale
        array(runs, 2, name, "(seed, epoch)")
        epochs = np.arange(1, runs.shape[1] + 1)
        ax.plot(epochs, runs.mean(axis=0), color=color, label=name)
        if len(runs) > 1:
            ax.fill_between(epochs, runs.min(axis=0), runs.max(axis=0), color=color, alpha=0.15, linewidth=0)
    if chance is not None:
        ax.axhline(chance * scale, color=GREY, linestyle=":", linewidth=1.4)
        ax.annotate(
            "chance",
            (1.0, chance * scale),  # curves begin at chance: at the right there is room
            xycoords=("axes fraction", "data"),
            xytext=(-4, 3),
            textcoords="offset points",
            ha="right",
            color=GREY,
            fontsize=9,
        )
    ax.set(xlabel="epoch", xlim=(0, None), ylabel=f"{quantity} (%)" if percent else quantity)
    ax.legend(loc="best")
    return ax


def accuracies(values: Mapping[str, Sequence[float]], ax: Axes | None = None, *, chance: float | None = None) -> Axes:
    """Draw the accuracy of each method: every seed a dot, the mean a bar with the standard error as whisker.

    The axis shows only the range that the methods span, so the chance level is written below it.

    Args:
        values: for each method the accuracy of each seed, as fractions.
        ax: where to draw; None: a new figure.
        chance: chance level, as a fraction; None: not drawn.

    Returns:
        The axes.

    Raises:
        ShapeError: a method has no accuracy.
    """
    ax = axes(ax)
    names = list(values)
    rows = [100.0 * array(values[name], 1, name, "one accuracy a seed") for name in names]
    for row, (color, runs) in enumerate(zip(colours(len(names)), rows, strict=True)):
        mean = runs.mean()
        error = runs.std(ddof=1) / len(runs) ** 0.5 if len(runs) > 1 else 0.0
        ax.errorbar(
            mean, row, xerr=error, fmt="|", color=color, markersize=22, capsize=5, linewidth=2, markeredgewidth=2
        )
        ax.plot(runs, [row + 0.3] * len(runs), "o", color=color, markersize=5, alpha=0.7, markeredgewidth=0)
        label = f"{mean:.1f} \u00b1 {error:.1f}" if len(runs) > 1 else f"{mean:.1f}"
        ax.annotate(label, (1.02, row), xycoords=("axes fraction", "data"), va="center", color=INK)
    low, high = min(runs.min() for runs in rows), max(runs.max() for runs in rows)
    margin = max(1.0, 0.25 * (high - low))
    ax.set(yticks=range(len(names)), yticklabels=names, xlim=(max(0.0, low - margin), min(100.0, high + margin)))
    ax.set(xlabel="test accuracy (%)" if chance is None else f"test accuracy (%); chance {100 * chance:.1f} %")
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.grid(axis="y", visible=False)
    return ax


def kernel(
    response: ArrayLike, ax: Axes | None = None, *, dt_ms: float | None = None, labels: Sequence[str] = ()
) -> Axes:
    """Draw impulse responses: what one spike becomes at each later step.

    Args:
        response: ``(depth,)``, or several synapses ``(..., depth)``; up to seven as lines, more as an image.
        ax: where to draw; None: a new figure.
        dt_ms: length of a step in ms; None: the axis counts steps.
        labels: legend of each synapse.

    Returns:
        The axes.

    Raises:
        ShapeError: there is no response, or the number of labels is another.
    """
    import numpy as np

    values = np.atleast_1d(array(response, None, "response", "(..., depth)"))
    values = values.reshape(-1, values.shape[-1])
    if labels and len(labels) != len(values):
        fix = "give as many labels as synapses"
        raise ShapeError("kernel", f"{len(labels)} labels", f"one for each of the {len(values)} synapses", fix)
    ax = axes(ax)
    scale, depth = dt_ms or 1.0, values.shape[1]
    when = np.arange(depth) * scale
    ax.set_xlabel(_time_label("time since the spike", dt_ms))
    if len(values) > len(CATEGORIES):
        bound = float(abs(values).max()) or 1.0
        image = ax.imshow(
            values,
            cmap=COLOUR_MAPS["signed"],
            vmin=-bound,
            vmax=bound,
            aspect="auto",
            interpolation="nearest",
            extent=(-0.5 * scale, (depth - 0.5) * scale, len(values) - 0.5, -0.5),
        )
        ax.figure.colorbar(image, ax=ax, label="response (weight units)")
        ax.set_ylabel("synapse")
        ax.locator_params(axis="y", integer=True)
        ax.grid(False)
        return ax
    for row, (color, line) in enumerate(zip(colours(len(values)), values, strict=True)):
        ax.plot(when, line, "-o", color=color, markersize=3.5, linewidth=1.2, label=labels[row] if labels else None)
    ax.axhline(0.0, color=GREY, linewidth=0.8, zorder=0)
    ax.set_ylabel("response (weight units)")
    if labels:
        ax.legend()
    return ax


def _edges(largest: float) -> list[float]:
    """Bins around whole steps, at most forty; ten equal ones where the range is short."""
    if largest < 10:
        return [largest * k / 10 for k in range(11)]
    width = math.ceil((largest + 1) / 40)
    return [width * k - 0.5 for k in range(math.ceil((largest + 1) / width) + 1)]


def _time_label(what: str, dt_ms: float | None) -> str:
    return f"{what} (steps)" if dt_ms is None else f"{what} (ms)"
