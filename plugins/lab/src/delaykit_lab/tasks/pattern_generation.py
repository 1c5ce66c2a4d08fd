"""Pattern generation: the same input three times, in silence between; the answer goes on changing all the while.

One segment of random spikes comes three times. The target is one smooth curve over the whole trial, other at each
occurrence and in each gap, so a network must keep time with what it received hundreds of milliseconds ago.

Reference: Deng et al., "HetSyn": versatile timescale integration in spiking neural networks via heterogeneous synapses.
"""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor

from delaykit import ConfigError, ShapeError, checks
from delaykit_lab.declared import Declared


@dataclasses.dataclass(frozen=True)
class Pattern(Declared):
    """One problem: what comes, and what is wanted.

    Args:
        task: where it comes from.
        clean: input without noise, ``(time, channel)``, 0 or 1.
        target: ``(time, output)``, in [-1, 1].
    """

    task: PatternGeneration
    clean: Tensor
    target: Tensor

    def trial(self, generator: torch.Generator) -> Tensor:
        """Return the input with fresh noise, ``(time, 1, channel)``; noise is everywhere, gaps included."""
        noise = torch.rand(self.clean.shape, generator=generator) < self.task.noise_hz * self.task.dt_ms / 1000.0
        return torch.maximum(self.clean, noise.float()).unsqueeze(1)


@dataclasses.dataclass(frozen=True)
class PatternGeneration(Declared):
    """The task; a generator draws a problem.

    Args:
        outputs: number of targets at once.
        noise_hz: rate of the noise on every channel.
        channels: number of input channels.
        rate_hz: rate of the segment's spikes.
        duration_ms: length of a trial.
        segment_ms: length of the segment.
        onsets_ms: when it comes.
        cosines: number of cosines in a target; their frequencies are multiples of 0.5 Hz.
        dt_ms: length of a step.

    Example:
        >>> pattern = PatternGeneration().pattern(torch.Generator().manual_seed(0))
        >>> pattern.clean.shape, pattern.target.shape
        (torch.Size([2000, 100]), torch.Size([2000, 1]))
    """

    outputs: int = 1
    noise_hz: float = 2.0
    channels: int = 100
    rate_hz: float = 10.0
    duration_ms: float = 2000.0
    segment_ms: float = 500.0
    onsets_ms: tuple[float, ...] = (0.0, 750.0, 1500.0)
    cosines: int = 5
    dt_ms: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.outputs < 1 or self.channels < 1 or self.cosines < 1:
            fix = "ask for at least one"
            raise ConfigError("PatternGeneration", "no output, channel or cosine", "at least one of each", fix)
        if not all(math.isfinite(v) and v >= 0 for v in (self.noise_hz, self.rate_hz)):
            found, fix = f"rates {self.noise_hz}, {self.rate_hz} Hz", "correct the rates"
            raise ConfigError("PatternGeneration", found, "finite numbers >= 0", fix)
        ends = [at + self.segment_ms for at in self.onsets_ms]
        later = [*self.onsets_ms[1:], self.duration_ms]
        if not ends or any(end > start for end, start in zip(ends, later, strict=True)):
            expected = "segments one after the other, at least one"
            raise ConfigError("PatternGeneration.onsets_ms", f"{self.onsets_ms}", expected, "sort the onsets")

    @property
    def steps(self) -> int:
        """Length of a trial in steps."""
        return round(self.duration_ms / self.dt_ms)

    def windows(self) -> list[slice]:
        """Steps of each occurrence of the segment."""
        length = round(self.segment_ms / self.dt_ms)
        return [slice(round(at / self.dt_ms), round(at / self.dt_ms) + length) for at in self.onsets_ms]

    def gaps(self) -> Tensor:
        """True at the steps without segment, ``(time,)``."""
        gap = torch.ones(self.steps, dtype=torch.bool)
        for window in self.windows():
            gap[window] = False
        return gap

    def pattern(self, generator: torch.Generator) -> Pattern:
        """Draw a segment and its targets."""
        length = round(self.segment_ms / self.dt_ms)
        chance = self.rate_hz * self.dt_ms / 1000.0
        segment = (torch.rand(length, self.channels, generator=generator) < chance).float()
        clean = torch.zeros(self.steps, self.channels)
        for window in self.windows():
            clean[window] = segment
        return Pattern(self, clean, self.targets(generator))

    def targets(self, generator: torch.Generator) -> Tensor:
        """Draw sums of cosines, scaled to [-1, 1]: ``(time, output)``."""
        amplitude = torch.rand(self.cosines, self.outputs, generator=generator)
        phase = 2 * math.pi * torch.rand(self.cosines, self.outputs, generator=generator)
        seconds = torch.arange(self.steps) * (self.dt_ms / 1000.0)
        hertz = 0.5 * torch.arange(1, self.cosines + 1)
        angle = 2 * math.pi * seconds[:, None, None] * hertz[:, None] + phase
        curve = (amplitude * torch.cos(angle)).sum(1)
        low, high = curve.amin(0), curve.amax(0)
        return 2 * (curve - low) / (high - low) - 1


@checks.annotated
def distance(answer: Tensor, target: Tensor, first: slice, second: slice) -> Tensor:
    """Say how differently a network answers the same input at two times.

    ``sum_t (y_second - y_first)^2 / sum_t (y*_second - y*_first)^2``: 0 for the same answer, 1 for answers that are as
    different as the targets.

    Args:
        answer: y, ``(time, output)``.
        target: y*, same.
        first: steps of one occurrence.
        second: steps of another.

    Returns:
        One number an output.
    """
    if answer.shape != target.shape:
        fix = "give the answer as many steps and outputs as the target"
        raise ShapeError("distance", f"an answer {tuple(answer.shape)}", f"{tuple(target.shape)}, as the target", fix)
    return (answer[second] - answer[first]).pow(2).sum(0) / (target[second] - target[first]).pow(2).sum(0)
