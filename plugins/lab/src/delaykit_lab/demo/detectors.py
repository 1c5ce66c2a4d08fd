"""Do arrivals line up? One neuron a direction, all weights equal and fixed: what can learn is delays alone."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

import delaykit as dk
from delaykit_lab.models.detectors import Detectors
from delaykit_lab.tasks.moving_wave import MovingWave
from delaykit_lab.training.runner import FitConfig, fit


@dataclasses.dataclass(frozen=True)
class LearnedDelays:
    """Delays of eight detectors of a wave's direction, one a class.

    Args:
        lags: when each sensor of a class fires, ``(class, sensor)`` in steps.
        before: delays at first, ``(class, sensor)`` in steps.
        after: delays after training.
    """

    lags: Tensor
    before: Tensor
    after: Tensor

    def spread(self, delays: Tensor) -> float:
        """Standard deviation of the arrivals of a volley at its own detector, mean over detectors, in steps."""
        return (self.lags + delays).std(dim=1, correction=0).mean().item()

    def text(self, step_ms: float) -> str:
        """One line.

        Example:
            >>> lags = torch.tensor([[0.0, 2.0], [2.0, 0.0]])
            >>> LearnedDelays(lags, torch.zeros(2, 2), lags.flip(0)).text(1.0).partition(": ")[2]
            'the spikes of its wave arrive over +-1.0 ms before training, over +-0.0 ms after, mean of 2 neurons'
        """
        before, after = (step_ms * self.spread(delays) for delays in (self.before, self.after))
        return (
            "delays alone, one neuron a direction, all weights equal and fixed: the spikes of its wave arrive over "
            f"+-{before:.1f} ms before training, over +-{after:.1f} ms after, mean of {len(self.lags)} neurons"
        )


def learn_arrivals(task: MovingWave | None = None, seed: int = 0, epochs: int = 20) -> LearnedDelays:
    """Train the delays of one detector a direction; arrivals are wide at first, so that gradients reach across gaps.

    Args:
        task: the waves.
        seed: of waves, delays and order.
        epochs: passes over the training set.
    """
    task = task or MovingWave(samples=512, held=256)
    splits = task.splits(seed)
    net = Detectors(task.channels, task.classes)
    net.fc.weight.requires_grad_(False)
    delay = dk.FreeDelay("synaptic", max_delay=30, low=8.0, high=14.0, kernel="triangle", spread=16.0,
                         spread_decay=0.95)  # fmt: skip
    example = splits.train.batch(torch.arange(2))[0]
    dk.wrap_(net, {"fc": dk.At(delay, time_dim=0)}, example=example, generator=torch.Generator().manual_seed(seed))

    before = dk.status(net).delays["fc"].double()
    optimizer = torch.optim.Adam(dk.param_groups(net, lr=3e-3, delay_lr=0.4))
    dk.attach(optimizer, net)
    fit(net, splits, optimizer, FitConfig(epochs=epochs, seed=seed), advance=lambda done: dk.advance_(net, done))
    return LearnedDelays(task.lags()[..., 0], before, dk.status(net).delays["fc"].double())
