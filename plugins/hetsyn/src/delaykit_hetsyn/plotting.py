"""Pictures of time constants and of what they do, in :mod:`delaykit.plotting`'s visual language.

Every function draws on ``ax`` (or on a new one), labels its axes with units, returns the axes and never shows them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from delaykit import checks
from delaykit.errors import ConfigError, ShapeError
from delaykit.plotting import CATEGORIES, GREY, INK, array, axes, colours

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from numpy.typing import ArrayLike, NDArray

BINS = 40
SHORTEST_MS, LONGEST_MS = 0.1, 1e4  # ends of the axis: what lies outside is counted in the outermost bins


@checks.annotated
def tau_histogram(
    after: ArrayLike | Mapping[str, ArrayLike], ax: Axes | None = None, *, before: ArrayLike | None = None
) -> Axes:
    """Count time constants on a logarithmic axis, with those before training as an outline.

    Args:
        after: time constants in ms, any shape; or several connections by name.
        ax: where to draw; None: a new figure.
        before: before training, any shape; None: not drawn.

    Returns:
        The axes.
    """
    import numpy as np

    ax = axes(ax)
    groups = after if isinstance(after, Mapping) else {"after training": after}
    if not groups:
        raise ConfigError("tau_histogram", "no time constants", "at least one group", "pass those of a layer")
    values = {name: _taus(group) for name, group in groups.items()}
    earlier = None if before is None else _taus(before)
    everything = np.concatenate([*values.values(), *([] if earlier is None else [earlier])])
    edges = np.geomspace(0.9 * everything.min(), 1.1 * everything.max(), BINS + 1)
    several = len(values) > 1
    for color, (name, group) in zip(colours(len(values)), values.items(), strict=True):
        look: dict[str, Any] = (
            {"histtype": "step", "linewidth": 1.6} if several else {"alpha": 0.75, "edgecolor": "white"}
        )
        _count(ax, group, edges, color=color, label=name, **look)
    if earlier is not None:
        _count(ax, earlier, edges, histtype="step", color=INK, linewidth=1.3, linestyle="--", label="before")
    ends = "time constant (ms; right end: more, or endless)" if everything.max() >= LONGEST_MS else "time constant (ms)"
    ax.set(xscale="log", xlabel=ends, ylabel="share (%)")
    steps = (1, 2, 5) if edges[-1] < 100 * edges[0] else (1,)
    ticks = [k * 10.0**n for n in range(-1, 5) for k in steps if edges[0] <= k * 10.0**n <= edges[-1]]
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.minorticks_off()
    ax.set_ylim(top=1.25 * ax.get_ylim()[1])  # room for the legend
    ax.legend(loc="upper center", ncols=2)
    return ax


@checks.annotated
def membranes(
    membrane: ArrayLike, ax: Axes | None = None, *, spikes: ArrayLike | None = None, dt_ms: float = 1.0,
    threshold: float = 1.0, labels: Sequence[str] = (), spans: Sequence[tuple[float, float]] = (),
) -> Axes:  # fmt: skip
    """Draw membranes over time, in lanes of their own, with their thresholds and spikes.

    Args:
        membrane: ``(time, neuron)``.
        ax: where to draw; None: a new figure.
        spikes: ``(time, neuron)``; None: not drawn.
        dt_ms: length of a step in ms.
        threshold: drawn as a dotted line in each lane.
        labels: name of each lane; none: the neurons are counted.
        spans: (begin, end) in ms of what is shaded, e.g. cues.

    Returns:
        The axes.

    Raises:
        ShapeError: ``membrane`` has not two dimensions, or ``labels`` are too many or too few.
    """
    import numpy as np

    values = array(membrane, 2, "membranes", "(time, neuron)")
    checks.number("membranes dt_ms", dt_ms, above=0, what="number of ms")
    labels = list(labels)
    if labels and len(labels) != values.shape[1]:
        fix = "give as many labels as neurons"
        raise ShapeError("membranes", f"{len(labels)} labels", f"one for each of the {values.shape[1]} neurons", fix)
    ax = axes(ax)
    _shade(ax, spans)
    when = np.arange(len(values)) * dt_ms
    lane = 1.15 * max(float(values.max() - values.min()), threshold)
    fired = None if spikes is None else array(spikes, 2, "membranes(spikes)", "(time, neuron)")
    if fired is not None and fired.shape != values.shape:
        fix = "give the spikes of these membranes"
        raise ShapeError("membranes", f"spikes {fired.shape} and membranes {values.shape}", "equal shapes", fix)
    for k, color in enumerate(colours(values.shape[1])):
        base = -k * lane
        ax.axhline(base, color=GREY, linewidth=0.5)
        ax.axhline(base + threshold, color=GREY, linewidth=0.8, linestyle=":")
        ax.plot(when, values[:, k] + base, color=color, linewidth=1.1)
        if fired is not None:
            at = when[fired[:, k] > 0]
            top = base + float(values.max()) + 0.04 * lane
            ax.plot(at, np.full(len(at), top), "|", color=INK, markersize=6, markeredgewidth=1.2)
    ax.set(xlabel="time (ms)", xlim=(when[0], when[-1]), yticks=[-k * lane for k in range(values.shape[1])])
    ax.set_yticklabels(labels or [str(k) for k in range(values.shape[1])])
    ax.set_ylabel("" if labels else "neuron")
    ax.grid(False)
    return ax


@checks.annotated
def answer(
    output: ArrayLike, target: ArrayLike, ax: Axes | None = None, *, dt_ms: float = 1.0, label: str = "output",
    color: str = CATEGORIES[0], spans: Sequence[tuple[float, float]] = (),
) -> Axes:  # fmt: skip
    """Draw an output against its target.

    Args:
        output: ``(time,)``.
        target: ``(time,)``.
        ax: where to draw; None: a new figure.
        dt_ms: length of a step in ms.
        label: legend of the output.
        color: of the output.
        spans: (begin, end) in ms of what is shaded, e.g. when input comes.

    Returns:
        The axes.

    Raises:
        ShapeError: the two are no curves of the same length.
    """
    import numpy as np
    from matplotlib.colors import is_color_like

    said, wanted = (array(x, 1, "answer", "(time,) for both") for x in (output, target))
    if said.shape != wanted.shape:
        fix = "give one output of one sequence"
        raise ShapeError("answer", f"shapes {said.shape} and {wanted.shape}", "(time,) for both", fix)
    if not is_color_like(color):
        raise ConfigError("answer color", checks.shown(color), "a color of matplotlib's", "pass e.g. 'black'")
    checks.number("answer dt_ms", dt_ms, above=0, what="number of ms")
    ax = axes(ax)
    _shade(ax, spans)
    when = np.arange(len(said)) * dt_ms
    ax.plot(when, wanted, color=INK, linewidth=1.2, linestyle="--", label="target")
    ax.plot(when, said, color=color, linewidth=1.4, label=label)
    ax.set(xlabel="time (ms)", ylabel="membrane of the readout", xlim=(when[0], when[-1]))
    ax.grid(False)
    ax.legend(loc="upper right", ncols=2)
    return ax


def _count(ax: Axes, values: NDArray[np.float64], edges: NDArray[np.float64], **look: Any) -> None:
    ax.hist(values, bins=edges.tolist(), weights=[100.0 / len(values)] * len(values), **look)


def _shade(ax: Axes, spans: Sequence[tuple[float, float]]) -> None:
    for begin, end in spans:
        ax.axvspan(begin, end, color="#efefef", linewidth=0, zorder=0)


def _taus(values: ArrayLike) -> NDArray[np.float64]:
    import numpy as np

    flat = array(values, None, "tau_histogram", "at least one time constant").ravel()
    return np.clip(np.nan_to_num(flat, nan=LONGEST_MS, posinf=LONGEST_MS), SHORTEST_MS, LONGEST_MS)
