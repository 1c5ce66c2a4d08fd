"""Pictures of motifs and of memories, in delaykit's visual language; each draws on ``ax`` and returns it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from delaykit import checks
from delaykit.errors import ShapeError
from delaykit.plotting import CATEGORIES, COLOUR_MAPS, GREY, INK, axes, colours
from delaykit_motifs.experiments import Point
from delaykit_motifs.metrics import f1_over_time

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@checks.annotated
def plot_motif(taps: Tensor, post: int, ax: Axes | None = None, *, most: int = 60, label: str = "weight") -> Axes:
    """Draw what one neuron listens for: its taps over delay and presynaptic neuron.

    Args:
        taps: ``(post, pre, depth)``.
        post: the neuron.
        ax: where to draw; None: a new figure.
        most: draw only so many presynaptic neurons, those with the strongest taps.
        label: of the colour bar.
    """
    if taps.dim() != 3 or not 0 <= post < len(taps):
        found = f"neuron {post} of taps {tuple(taps.shape)}"
        raise ShapeError("plot_motif", found, "(post, pre, depth), and a neuron 0 .. post - 1", "pass memory.taps")
    ax = axes(ax)
    rows = taps[post].detach().cpu().numpy()
    chosen = np.sort(np.argsort(-np.abs(rows).max(1), kind="stable")[:most])
    limit = max(float(np.abs(rows).max()), 1e-12)
    image = ax.imshow(
        rows[chosen], aspect="auto", cmap=COLOUR_MAPS["signed"], vmin=-limit, vmax=limit, interpolation="nearest"
    )
    shown = "all" if len(chosen) == len(rows) else f"{len(chosen)} strongest"
    ax.set(xlabel="delay tau (steps)", ylabel=f"presynaptic neuron ({shown})", title=f"motif of neuron {post}")
    ticks = np.linspace(0, len(chosen) - 1, min(6, len(chosen))).astype(int)
    ax.set_yticks(ticks, [str(chosen[k]) for k in ticks])
    ax.grid(False)
    ax.figure.colorbar(image, ax=ax, label=label)
    return ax


@checks.annotated
def plot_recall(
    recalled: Tensor, target: Tensor, depth: int, ax: Axes | None = None, *, neurons: int | None = None
) -> Axes:
    """Draw one recalled pattern over its target: hits, false alarms, misses, and where the cue ends.

    Args:
        recalled: spikes of one pattern, ``(time, neuron)``.
        target: the same shape.
        depth: length of the cue in steps.
        ax: where to draw; None: a new figure.
        neurons: draw the first so many; None: all.
    """
    if recalled.dim() != 2 or recalled.shape != target.shape:
        sizes = f"{tuple(recalled.shape)} and {tuple(target.shape)}"
        raise ShapeError("plot_recall", sizes, "two equal shapes (time, neuron)", "pass one pattern: spikes[:, 0]")
    ax = axes(ax)
    found, wanted = ((s[:, :neurons] != 0).cpu().numpy() for s in (recalled, target))
    kinds = (
        ("recalled", found & wanted, INK, "|"),
        ("false alarm", found & ~wanted, CATEGORIES[4], "x"),
        ("missed", ~found & wanted, CATEGORIES[0], "|"),
    )
    for name, spikes, color, marker in kinds:
        step, unit = spikes.nonzero()
        ax.scatter(step, unit, s=14, c=color, marker=marker, linewidths=1.1, label=f"{name} ({len(step)})")
    ax.axvspan(0, depth, color=GREY, alpha=0.2, linewidth=0, label="cue")
    ax.set(xlabel="time (steps)", ylabel="neuron", xlim=(0, len(found)), ylim=(-1, found.shape[1]))
    ax.grid(False)
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=4, fontsize=9)
    return ax


@checks.annotated
def plot_f1_over_time(
    runs: Mapping[str, tuple[Tensor, Tensor]], depth: int, ax: Axes | None = None, *, width: int = 50
) -> Axes:
    """Draw F1 in bins of time: recall emerges near the cue and moves forward.

    Args:
        runs: name -> (recalled, target), spikes ``(time, pattern, neuron)``.
        depth: length of the cue in steps.
        ax: where to draw; None: a new figure.
        width: of a bin in steps.
    """
    ax = axes(ax)
    for color, (name, (recalled, target)) in zip(colours(len(runs)), runs.items(), strict=True):
        edges, values = f1_over_time(recalled, target, depth, width)
        ax.step(edges.numpy(), values.numpy(), where="post", label=name, color=color)
    ax.axvspan(0, depth, color=GREY, alpha=0.2, linewidth=0)
    ax.set(xlabel="time (steps)", ylabel=f"F1 in {width} steps", ylim=(-0.03, 1.05))
    ax.legend()
    return ax


@checks.annotated
def plot_sweep(
    runs: Mapping[str, Sequence[Point]], ax: Axes | None = None, *, label: str, title: str = "", log: bool = False
) -> Axes:
    """Draw F1 over what was varied: the mean of all seeds as a line, each seed as a dot.

    Args:
        runs: name -> points from :func:`~delaykit_motifs.experiments.sweep`.
        ax: where to draw; None: a new figure.
        label: of the horizontal axis, with its unit.
        title: above.
        log: logarithmic horizontal axis.
    """
    ax = axes(ax)
    for color, (name, points) in zip(colours(len(runs)), runs.items(), strict=True):
        values = sorted({p.value for p in points})
        means = [float(np.mean([p.f1 for p in points if p.value == value])) for value in values]
        ax.plot(values, means, color=color, linewidth=1.4, label=name)
        ax.scatter([p.value for p in points], [p.f1 for p in points], s=14, color=color, zorder=3)
    ax.set(xlabel=label, ylabel="F1", ylim=(-0.03, 1.05), title=title)
    if len(runs) > 1:
        ax.legend()
    if log:
        ax.set_xscale("log")
        shown = sorted({p.value for points in runs.values() for p in points})
        ax.set_xticks(shown, [f"{value:g}" for value in shown], rotation=45)  # neighbours like 1e-4 and 2e-4 touch
        ax.minorticks_off()
    return ax
