"""Where does a sound come from? Clicks reach the farther ear later; Jeffress's answer is a delay for each direction.

The interaural delay of a source at azimuth theta, for a round head of radius a and the speed of sound c, is

    ITD = a / c (theta + sin theta)

A neuron that is to hear theta needs delays of the two ears that differ by as much, the other way round.

Reference: Woodworth 1938, Experimental Psychology (the formula); Jeffress 1948, "A place theory of sound localization",
Journal of Comparative and Physiological Psychology 41, 35-39.
"""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar

import torch
from torch import Tensor

from delaykit import ConfigError, checks
from delaykit_lab.tasks.volleys import VolleyTask


@dataclasses.dataclass(frozen=True)
class SoundLocalisation(VolleyTask):
    """Clicks at two ears; the classes are directions from the far left (0) to the far right, evenly spaced.

    Args:
        directions: number of azimuths, from ``-widest`` to ``widest`` degrees, >= 2.
        widest: largest azimuth in degrees, in (0, 90].
        clicks: clicks of one sound, at random times, >= 1.
        radius_mm: of the head, > 0.
        dt_ms: length of a step in ms, > 0.

    Example:
        >>> task = SoundLocalisation(directions=3)
        >>> [round(float(itd), 2) for itd in task.interaural_ms()]  # negative: the left ear is first
        [-0.66, 0.0, 0.66]
        >>> task.channels, task.classes
        (2, 3)
    """

    name: ClassVar[str] = "sound-localisation"
    channels: ClassVar[int] = 2  # type: ignore[misc]
    SPEED: ClassVar[float] = 343.0  # of sound, mm a ms

    directions: int = 9
    _: dataclasses.KW_ONLY
    widest: float = 90.0
    clicks: int = 6
    radius_mm: float = 87.5
    dt_ms: float = 0.05
    jitter: float = 0.7

    def __post_init__(self) -> None:
        super().__post_init__()
        for field in ("directions", "clicks"):
            checks.whole(f"SoundLocalisation.{field}", getattr(self, field))
        if self.directions < 2 or self.clicks < 1:
            found = f"{self.directions} directions, {self.clicks} clicks"
            raise ConfigError("SoundLocalisation", found, "at least 2 directions and 1 click", "ask for more of them")
        checks.number("SoundLocalisation.widest", self.widest, above=0, most=90, what="number of degrees")
        for field in ("radius_mm", "dt_ms"):
            checks.number(f"SoundLocalisation.{field}", getattr(self, field), above=0)

    @property
    def classes(self) -> int:  # type: ignore[override]
        """Number of directions."""
        return self.directions

    def azimuths(self) -> Tensor:
        """Azimuth of each class in degrees, left is negative."""
        return torch.linspace(-self.widest, self.widest, self.directions, dtype=torch.float64)

    def interaural_ms(self) -> Tensor:
        """Time by which the left ear is later than the right one, for each class, in ms."""
        theta = self.azimuths().deg2rad()
        return self.radius_mm / self.SPEED * (theta + theta.sin())

    def lags(self) -> Tensor:
        half = self.interaural_ms() / (2 * self.dt_ms)
        return torch.stack([half, -half], 1).unsqueeze(2) + half.abs().max()

    @property
    def steps(self) -> int:
        return self._last_start() + 3 * math.ceil(float(self.lags().max())) + 12

    def starts(self, samples: int, generator: torch.Generator) -> Tensor:
        """Draw when clicks come, ``(sample, click)`` in steps: anywhere within the sound."""
        drawn = torch.rand(samples, self.clicks, generator=generator, dtype=torch.float64)
        return 2 + drawn * (self._last_start() - 2)

    def title(self) -> str:
        return f"sound from {self.directions} directions, {self.clicks} clicks, steps of {1000 * self.dt_ms:g} us"

    def step_ms(self) -> float:
        return self.dt_ms

    def _last_start(self) -> int:
        return 4 + 12 * self.clicks
