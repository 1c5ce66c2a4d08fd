"""The demo's pictures, in delaykit's one visual language."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from delaykit import plotting
from delaykit_lab.demo import DemoResult
from delaykit_lab.task import Frames
from delaykit_lab.variants import VARIANTS

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw(result: DemoResult, frames: Frames, step_ms: float | None, output: str | Path) -> list[Path]:
    """Write ``input.png``, ``learning.png``, ``delays.png`` and ``accuracy.png``.

    Args:
        result: what the demo found.
        frames: samples of which three of different classes are shown.
        step_ms: length of a time step in ms; None: axes count steps.
        output: folder.

    Returns:
        The four files.
    """
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    with plotting.style():
        figures = {
            "input": _input(frames, step_ms),
            "learning": _learning(result),
            "delays": _delays(result),
            "accuracy": _accuracy(result),
        }
        paths = []
        for name, figure in figures.items():
            paths.append(folder / f"{name}.png")
            figure.savefig(paths[-1])
    return paths


def _figure(columns: int, width: float, height: float) -> tuple[Figure, list]:
    """A figure that pyplot does not keep: no window, no backend, nothing to close."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    return figure, list(figure.subplots(1, columns, squeeze=False)[0])


def _input(frames: Frames, step_ms: float | None) -> Figure:
    figure, axes = _figure(3, 11, 3.6)
    classes = frames.labels.unique()[:3]
    for ax, label in zip(axes, classes, strict=False):
        sample = int((frames.labels == label).nonzero()[0])
        plotting.raster(frames.spikes[:, sample], ax, dt_ms=step_ms, channel="input channel")
        ax.set_title(f"one sample of class {int(label)}")
    return figure


def _learning(result: DemoResult) -> Figure:
    figure, (left, right) = _figure(2, 11, 3.8)
    histories = {v.title: [run.history for run in result.runs if run.variant == v.name] for v in VARIANTS}
    curves = {
        title: np.array([[e.validation_accuracy for e in one] for one in many]) for title, many in histories.items()
    }
    losses = {title: np.array([[e.train_loss for e in one] for one in many]) for title, many in histories.items()}
    plotting.learning_curves(curves, left, chance=result.chance)
    left.set_title(f"held-out validation, {result.sizes['validation']} samples; line: mean, band: all seeds")
    plotting.learning_curves(losses, right, quantity="training loss (nats)", percent=False)
    right.set_title("training")
    return figure


def _delays(result: DemoResult) -> Figure:
    learned = [run for run in result.runs if run.variant == "learned"]
    sites = list(learned[0].delays_after)
    figure, axes = _figure(len(sites), 5.5 * len(sites), 3.8)
    for ax, site in zip(axes, sites, strict=True):
        before = np.concatenate([run.delays_before[site] for run in learned])
        after = np.concatenate([run.delays_after[site] for run in learned])
        plotting.delay_histogram(
            after, ax, before=before, max_delay=result.config.max_delay, label_before="before (frozen net)"
        )
        ax.set_title(f"{site}: moved by {abs(after - before).mean():.1f} steps on average")
    return figure


def _accuracy(result: DemoResult) -> Figure:
    figure, (ax,) = _figure(1, 7.5, 3.0)
    titles = {v.name: v.title for v in VARIANTS}
    plotting.accuracies(
        {titles[name]: values for name, values in result.accuracies().items()}, ax, chance=result.chance
    )
    ax.set_title(f"{result.sizes['test']} test samples, {result.config.seeds} seed(s), standard error")
    return figure
