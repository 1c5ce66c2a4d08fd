"""Where does the wave come from? A ring of sensors; the nearest fires first, the farthest last, each once."""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar

import torch
from torch import Tensor

from delaykit import ConfigError, checks
from delaykit_lab.tasks.volleys import VolleyTask


@dataclasses.dataclass(frozen=True)
class MovingWave(VolleyTask):
    """A plane wave passes a ring: sensor at angle a fires ``sweep (1 - cos(a - source))`` steps after the first.

    Args:
        sensors: number of sensors on the ring, >= 3.
        directions: number of directions, evenly spaced, >= 2.
        sweep: time from the middle to the rim, in steps, > 0.
        dt_ms: length of a step in ms.

    Example:
        >>> task = MovingWave(sensors=4, directions=4)
        >>> task.best_delays()[0].round(decimals=6).abs().tolist()  # the nearest waits longest
        [12.0, 6.0, 0.0, 6.0]
    """

    name: ClassVar[str] = "moving-wave"

    sensors: int = 16
    directions: int = 8
    _: dataclasses.KW_ONLY
    sweep: float = 6.0
    dt_ms: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for field in ("sensors", "directions"):
            checks.whole(f"MovingWave.{field}", getattr(self, field))
        if self.sensors < 3 or self.directions < 2:
            found = f"{self.sensors} sensors, {self.directions} directions"
            raise ConfigError("MovingWave", found, "at least 3 sensors and 2 directions", "ask for more of them")
        for field in ("sweep", "dt_ms"):
            checks.number(f"MovingWave.{field}", getattr(self, field), above=0)

    @property
    def channels(self) -> int:  # type: ignore[override]
        """Number of sensors."""
        return self.sensors

    @property
    def classes(self) -> int:  # type: ignore[override]
        """Number of directions."""
        return self.directions

    def lags(self) -> Tensor:
        around = torch.arange(self.sensors, dtype=torch.float64) * 2 * math.pi / self.sensors
        source = torch.arange(self.directions, dtype=torch.float64) * 2 * math.pi / self.directions
        return (self.sweep * (1 - torch.cos(around - source[:, None]))).unsqueeze(2)

    @property
    def steps(self) -> int:
        return 24 + round(4 * self.sweep)

    def title(self) -> str:
        return f"a wave from {self.directions} directions over {self.sensors} sensors"

    def step_ms(self) -> float:
        return self.dt_ms
