"""Tasks that need delays: volleys of spikes whose order alone tells the class, and what the best delays would be.

A sample of class c is a volley, or several: channel j fires at ``start + lag[c, j, e] + jitter`` for each event e.
Every channel fires as often in every class: counts say nothing, and a membrane that forgets within a few steps cannot
bring the spikes of a volley together. Delays can: with ``d[c, j] = max_j lag[c, j] - lag[c, j]`` a volley of class c
arrives all at once at neuron c.
"""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor

from delaykit import checks
from delaykit_lab.task import Frames, Splits, Task

TEST_SEED = 2025


class Volleys(NamedTuple):
    """Labelled spike times before they are binned.

    Args:
        times: steps, real numbers, ``(sample, volley, channel, event)``.
        labels: ``(sample,)``, int64.
    """

    times: Tensor
    labels: Tensor


class Optimum(NamedTuple):
    """What a task asks for, from its definition.

    Args:
        delays: the delay in steps that channel j needs at a neuron for class c, ``(class, channel)``, smallest 0.
        accuracy: of the best decision on the very spike times of the test set, before rounding and without the
            background: no network can be expected to do better.
    """

    delays: Tensor
    accuracy: float


@dataclasses.dataclass(frozen=True)
class VolleyTask(Task):
    """Volleys of spikes with fixed lags; subclasses say which.

    Args:
        samples: number of training samples in :meth:`splits`, >= 1.
        held: number of validation samples, and of test samples, >= 1.
        jitter: standard deviation of every spike time in steps, >= 0.
        background: probability of an additional spike, a channel and a step, in [0, 1).
    """

    _: dataclasses.KW_ONLY
    samples: int = 1024
    held: int = 512
    jitter: float = 0.7
    background: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        name = type(self).__name__
        for field in ("samples", "held"):
            checks.whole(f"{name}.{field}", getattr(self, field), least=1)
        checks.number(f"{name}.jitter", self.jitter, least=0, what="number of steps", fix="pass e.g. jitter=1.0")
        background = self.background
        checks.number(f"{name}.background", background, least=0, below=1, what="probability", fix="pass e.g. 0.01")

    @abstractmethod
    def lags(self) -> Tensor:
        """Lag of each event in steps, >= 0, ``(class, channel, event)``, float64."""

    @property
    @abstractmethod
    def steps(self) -> int:
        """Length of a sample in steps."""

    def starts(self, samples: int, generator: torch.Generator) -> Tensor:
        """Draw when volleys begin, ``(sample, volley)``, in steps: one each, 2 to 8 steps after the sample does."""
        return torch.rand(samples, 1, generator=generator, dtype=torch.float64) * 6 + 2

    def best_delays(self) -> Tensor:
        """Delays that bring a volley of each class together, ``(class, channel)`` in steps."""
        lags = self.lags()[..., 0]
        return lags.max(1, keepdim=True).values - lags

    def volleys(self, samples: int, generator: torch.Generator) -> Volleys:
        """Draw labels, uniform over classes, and spike times."""
        lags = self.lags()
        labels = torch.randint(len(lags), (samples,), generator=generator)
        times = self.starts(samples, generator)[:, :, None, None] + lags[labels][:, None]
        return Volleys(times + self.jitter * torch.randn(times.shape, generator=generator, dtype=times.dtype), labels)

    def frames(self, volleys: Volleys, generator: torch.Generator) -> Frames:
        """Bin to the nearest step, at most one spike a bin, and add the background; early and late ones at the ends."""
        samples, _, channels, _ = volleys.times.shape
        spikes = torch.rand(self.steps, samples, channels, generator=generator) < self.background
        step = volleys.times.round().clamp(0, self.steps - 1).long()
        step = step.movedim(2, 1).flatten(2)  # (sample, channel, spike)
        spikes.scatter_(0, step.permute(2, 0, 1), True)
        return Frames(spikes.to(torch.uint8), volleys.labels)

    def splits(self, seed: int) -> Splits:
        """Draw; the seed draws training and validation samples, the test samples are always the same."""
        generator = torch.Generator().manual_seed(seed)
        train, held = (self.frames(self.volleys(n, generator), generator) for n in (self.samples, self.held))
        return Splits(train, held, self.frames(*self._test()))

    def optimum(self) -> Optimum:
        """Return the best delays, and the accuracy of the best decision on the test set's spike times.

        Jitter is Gaussian and alike everywhere, starts are unknown: the likeliest class is the one whose lags are
        nearest to the times, both centred, volley by volley.
        """
        times, labels = self._test()[0]
        lags = self.lags().flatten(1)
        centred = times.flatten(2) - times.flatten(2).mean(2, keepdim=True)
        templates = lags - lags.mean(1, keepdim=True)
        distance = (centred[:, :, None] - templates).square().sum((1, 3))
        accuracy = (distance.argmin(1) == labels).double().mean().item()
        return Optimum(self.best_delays(), accuracy)

    def _test(self) -> tuple[Volleys, torch.Generator]:
        fixed = torch.Generator().manual_seed(TEST_SEED)
        return self.volleys(self.held, fixed), fixed
