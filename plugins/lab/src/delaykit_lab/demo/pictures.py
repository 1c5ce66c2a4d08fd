"""The demo's pictures, in delaykit's one visual language: each says one thing in five seconds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from delaykit import plotting
from delaykit_lab.demo.detectors import LearnedDelays
from delaykit_lab.demo.runs import DemoResult
from delaykit_lab.demo.variants import VARIANTS
from delaykit_lab.task import Frames

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLES = {variant.name: variant.title for variant in VARIANTS}


def draw(result: DemoResult, frames: Frames, step_ms: float | None, output: str | Path) -> list[Path]:
    """Write ``input.png``, ``learning.png``, ``delays.png`` and ``accuracy.png``.

    Args:
        result: what a part of the demo found.
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
            "delays": _delays(result, step_ms),
            "accuracy": _accuracy(result),
        }
        paths = []
        for name, figure in figures.items():
            paths.append(folder / f"{name}.png")
            figure.savefig(paths[-1])
    return paths


def draw_arrivals(found: LearnedDelays, step_ms: float, path: str | Path, label: int = 2) -> Path:
    """Draw when the spikes of a wave arrive at its detector, before and after training.

    Args:
        found: of the detectors.
        step_ms: length of a step in ms.
        path: the picture.
        label: class of the wave, whichever it is chosen beforehand.
    """
    with plotting.style():
        figure, axes = _figure(2, 8.5, 3.7, sharey=True)
        lag = step_ms * found.lags[label].numpy()
        for ax, when, delays in zip(axes, ("before", "after"), (found.before, found.after), strict=True):
            arrive = lag + step_ms * delays[label].numpy()
            channels = np.arange(len(lag))
            ax.hlines(channels, lag, arrive, color=plotting.GREY, linewidth=0.8, alpha=0.5)
            ax.scatter(lag, channels, s=70, marker="|", color=plotting.INK, linewidths=1.4, label="spike leaves")
            ax.scatter(arrive, channels, s=34, color=plotting.CATEGORIES[1], linewidths=0, label="spike arrives")
            ax.set_title(f"{when} training: at this neuron over ± {arrive.std():.1f} ms")
            ax.set(xlabel="time (ms)", xlim=(-1, step_ms * 32), ylim=(-0.7, len(lag) - 0.3))
            ax.grid(axis="y", visible=False)
        axes[0].set(ylabel="sensor", yticks=range(0, len(lag), 5))
        axes[1].legend(loc="center right")
        figure.savefig(path)
    return Path(path)


def _figure(columns: int, width: float, height: float, **options: Any) -> tuple[Figure, list]:
    """A figure that pyplot does not keep: no window, no backend, nothing to close."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    return figure, list(figure.subplots(1, columns, squeeze=False, **options)[0])


def _input(frames: Frames, step_ms: float | None) -> Figure:
    figure, axes = _figure(3, 11, 3.6, sharey=True)
    classes = frames.labels.unique()[:3]
    for ax, label in zip(axes, classes, strict=False):
        sample = int((frames.labels == label).nonzero()[0])
        plotting.raster(frames.spikes[:, sample], ax, dt_ms=step_ms, channel="input channel" if ax is axes[0] else "")
        ax.set_title(f"one sample of class {int(label) + 1}")
    return figure


def _learning(result: DemoResult) -> Figure:
    figure, (left, right) = _figure(2, 11, 3.8)
    histories = {v.title: [run.history for run in result.runs if run.variant == v.name] for v in VARIANTS}
    curves = {
        title: np.array([[e.validation_accuracy for e in one] for one in many]) for title, many in histories.items()
    }
    losses = {title: np.array([[e.train_loss for e in one] for one in many]) for title, many in histories.items()}
    plotting.learning_curves(curves, left, chance=result.chance)
    left.set_title(f"{result.sizes['validation']} validation samples; line: mean, band: all seeds")
    plotting.learning_curves(losses, right, quantity="training loss (nats)", percent=False)
    right.set_title("training samples")
    return figure


def _delays(result: DemoResult, step_ms: float | None) -> Figure:
    learned = [run for run in result.runs if run.variant == "learned"]
    sites = list(learned[0].delays_after)
    figure, axes = _figure(len(sites), 4.4 * len(sites), 4.4)
    for ax, site in zip(axes, sites, strict=True):
        before = np.concatenate([run.delays_before[site] for run in learned])
        after = np.concatenate([run.delays_after[site] for run in learned])
        plotting.delay_pairs(before, after, ax, max_delay=result.config.max_delay, dt_ms=step_ms)
        scale, unit = (step_ms, "ms") if step_ms else (1.0, "steps")
        ax.set_title(f"{site}: moved by {scale * abs(after - before).mean():.1f} {unit} on average")
    return figure


def _accuracy(result: DemoResult) -> Figure:
    figure, (ax,) = _figure(1, 7.5, 3.0)
    found = result.accuracies()
    rows = {TITLES[name]: values for name, values in found.items()}
    rows["learned, rounded afterwards"] = result.accuracies(integer=True)["learned"]
    plotting.accuracies(rows, ax, chance=result.chance)
    ax.set_title(f"{result.sizes['test']} test samples, {result.config.seeds} seeds: mean ± standard error")
    return figure
