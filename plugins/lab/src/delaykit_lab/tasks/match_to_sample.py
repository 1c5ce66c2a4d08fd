"""Delayed match to sample: two cues, a gap between them; was the second the same as the first?

Three groups of channels: left, right and noise. A cue is a burst of spikes on the left or on the right channels. The
answer is due at the last step, when the second cue ends, so the first must be remembered through the whole gap.

Reference: Deng et al., "HetSyn": versatile timescale integration in spiking neural networks via heterogeneous synapses.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from delaykit import ConfigError, checks
from delaykit_lab.task import Frames, Splits, Task


class Trials(NamedTuple):
    """A batch of trials.

    Args:
        spikes: ``(time, batch, channel)``, 0 or 1.
        labels: 1 where the cues match, ``(batch,)``, int64.
        cues: 0 for left and 1 for right, first and second, ``(2, batch)``.
    """

    spikes: Tensor
    labels: Tensor
    cues: Tensor


@dataclasses.dataclass(frozen=True)
class MatchToSample(Task):
    """The task; every call of :meth:`trials` draws new ones, and :meth:`splits` fixed sets of them.

    Args:
        delay_ms: gap between the end of the first cue and the beginning of the second, >= 0.
        noise_hz: additional random spikes on every channel, at all times.
        dt_ms: length of a step in ms; all times are whole numbers of steps.
        cue_ms: length of a cue.
        onset_ms: beginning of the first cue.
        cue_hz: rate of a channel during its cue.
        background_hz: rate of the noise channels.
        group: channels in each of the three groups.
        samples: number of training trials in :meth:`splits`, >= 1.
        held: number of validation trials, and of test trials, >= 1.

    Example:
        >>> trials = MatchToSample().trials(4, torch.Generator().manual_seed(0))
        >>> trials.spikes.shape, trials.labels.shape
        (torch.Size([210, 4, 30]), torch.Size([4]))
    """

    name: ClassVar[str] = "match-to-sample"
    classes: ClassVar[int] = 2  # type: ignore[misc]

    delay_ms: float = 800.0
    noise_hz: float = 0.0
    dt_ms: float = 5.0
    cue_ms: float = 100.0
    onset_ms: float = 50.0
    cue_hz: float = 40.0
    background_hz: float = 10.0
    group: int = 10
    samples: int = 3200
    held: int = 1000

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("group", "samples", "held"):
            checks.whole(f"MatchToSample.{name}", getattr(self, name), least=1)
        for name in ("delay_ms", "onset_ms", "noise_hz", "background_hz"):
            checks.number(f"MatchToSample.{name}", getattr(self, name), least=0)
        for name in ("dt_ms", "cue_ms", "cue_hz"):
            checks.number(f"MatchToSample.{name}", getattr(self, name), above=0)
        largest = max(self.cue_hz, self.background_hz) + self.noise_hz
        if largest * self.dt_ms > 1000.0:
            fix = "lower the rate, or make dt_ms smaller"
            raise ConfigError(
                "MatchToSample", f"{largest:g} Hz in steps of {self.dt_ms:g} ms", "a spike a step at most", fix
            )

    @property
    def channels(self) -> int:  # type: ignore[override]
        """Number of input channels."""
        return 3 * self.group

    @property
    def steps(self) -> int:
        """Length of a trial in steps."""
        return self._step(self.onset_ms + 2 * self.cue_ms + self.delay_ms)

    def windows(self) -> tuple[slice, slice]:
        """Steps of the first and of the second cue."""
        second = self.onset_ms + self.cue_ms + self.delay_ms
        return tuple(slice(self._step(at), self._step(at + self.cue_ms)) for at in (self.onset_ms, second))  # type: ignore[return-value]

    def trials(self, batch: int, generator: torch.Generator) -> Trials:
        """Draw ``batch`` trials; the spikes are Poisson, at most one a step."""
        cues = torch.randint(2, (2, batch), generator=generator)
        rate = torch.full((self.steps, batch, 3, self.group), self.noise_hz)
        rate[:, :, 2] += self.background_hz
        for window, cue in zip(self.windows(), cues, strict=True):
            rate[window, torch.arange(batch), cue] += self.cue_hz
        rate = rate.flatten(2)
        spikes = (torch.rand(rate.shape, generator=generator) < rate * (self.dt_ms / 1000.0)).float()
        return Trials(spikes, (cues[0] == cues[1]).long(), cues)

    def title(self) -> str:
        """One line for tables and pictures."""
        return f"match to sample: {self.channels} channels, a gap of {self.delay_ms:g} ms, steps of {self.dt_ms:g} ms"

    def step_ms(self) -> float:
        """Length of a time step in ms."""
        return self.dt_ms

    def splits(self, seed: int) -> Splits:
        """Draw; the seed draws training and validation trials, the test trials are always the same."""
        generator, fixed = torch.Generator().manual_seed(seed), torch.Generator().manual_seed(2025)
        counts = ((self.samples, generator), (self.held, generator), (self.held, fixed))
        drawn = [self.trials(count, source) for count, source in counts]
        return Splits(*(Frames(part.spikes.to(torch.uint8), part.labels) for part in drawn))

    def _step(self, at_ms: float) -> int:
        return round(at_ms / self.dt_ms)


@checks.annotated
@checks.annotated
def iterations_to(accuracy: Sequence[float], level: float = 0.95, window: int = 10) -> int | None:
    """Count the iterations until the mean accuracy of the last ``window`` reaches ``level``; None: never.

    Args:
        accuracy: of every iteration, in [0, 1].
        level: what the mean has to reach, in [0, 1].
        window: iterations that the mean is of.

    Example:
        >>> iterations_to([0.5] * 5 + [1.0] * 20, level=0.95, window=10)
        14
    """
    checks.whole("iterations_to window", window, least=1)
    for end in range(window, len(accuracy) + 1):
        if sum(accuracy[end - window : end]) / window >= level:
            return end
    return None
