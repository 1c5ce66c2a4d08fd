"""Do learned delays equal the geometry? Nine detectors learn where a sound comes from; their lags are measured."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import torch
from torch import Tensor

import delaykit as dk
from delaykit_lab.models.detectors import Detectors
from delaykit_lab.tasks.sound_localisation import SoundLocalisation
from delaykit_lab.training.runner import FitConfig, accuracy, fit, predict

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SPREAD, LONGEST = 16.0, 30.0


@dataclasses.dataclass(frozen=True)
class Lags:
    """What detectors of direction learned.

    Args:
        true_ms: interaural delay of each direction, from the geometry of the head, ``(class,)`` in ms.
        start_ms: by how much the delay of the right ear exceeded that of the left one before training.
        learned_ms: the same after training; equal to ``true_ms`` where a neuron hears its direction best.
        test_accuracy: fraction of test sounds named right.
    """

    true_ms: Tensor
    start_ms: Tensor
    learned_ms: Tensor
    test_accuracy: float

    def error_ms(self) -> float:
        """Mean distance of learned and true lags."""
        return (self.learned_ms - self.true_ms).abs().mean().item()


def learn_directions(task: SoundLocalisation, seed: int, epochs: int = 30) -> Lags:
    """Train the delays of one detector a direction; arrivals are wide at first, so that gradients reach across gaps.

    Weights stay as they are: while arrivals are wide and low they would grow, and be too large for narrow ones.

    Args:
        task: the sounds.
        seed: of sounds, delays and order.
        epochs: passes over the training set.

    Returns:
        Lags before and after, and the accuracy on test sounds.
    """
    splits = task.splits(seed)
    net = Detectors(task.channels, task.classes)
    net.fc.weight.requires_grad_(False)
    delay = dk.FreeDelay(
        "synaptic", max_delay=LONGEST, init="uniform", low=12.0, high=18.0, kernel="triangle", spread=SPREAD,
        spread_decay=0.95,
    )  # fmt: skip
    example = splits.train.batch(torch.arange(2))[0]
    dk.wrap_(net, {"fc": dk.At(delay, time_dim=0)}, example=example, generator=torch.Generator().manual_seed(seed))
    start = _lags(net)
    optimizer = torch.optim.Adam(dk.param_groups(net, lr=3e-3, delay_lr=0.3))
    dk.attach(optimizer, net)
    fit(net, splits, optimizer, FitConfig(epochs=epochs, seed=seed), advance=lambda done: dk.advance_(net, done))
    right = accuracy(predict(net, splits.test), splits.test)
    return Lags(task.interaural_ms(), start * task.dt_ms, _lags(net) * task.dt_ms, right)


def draw_lags(runs: list[Lags], ax: Axes | None = None) -> Axes:
    """Plot learned against true interaural delays; the diagonal is the geometry.

    Args:
        runs: one a seed.
        ax: where to draw; None: new axes.
    """
    from delaykit import plotting

    if ax is None:
        from matplotlib.figure import Figure

        ax = Figure(figsize=(4.6, 4.2), layout="constrained").subplots()
    bound = 1.25 * float(runs[0].true_ms.abs().max())
    ax.plot([-bound, bound], [-bound, bound], color=plotting.GREY, linestyle=":", label="geometry of the head")
    for index, run in enumerate(runs):
        names = ("before", "learned") if index == 0 else (None, None)
        ax.scatter(run.true_ms, run.start_ms, s=16, facecolors="none", edgecolors=plotting.GREY, label=names[0])
        ax.scatter(run.true_ms, run.learned_ms, s=24, color=plotting.CATEGORIES[1], label=names[1])
    ax.set(xlabel="true interaural delay (ms)", ylabel="delay right - left ear at the detector (ms)")
    ax.legend(loc="upper left")
    return ax


def _lags(net: Detectors) -> Tensor:
    delays = dk.status(net).delays["fc"].double()
    return delays[:, 1] - delays[:, 0]
