"""How long was it? Two clicks, the same on every fibre; only a delay that is as long as the interval joins them."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import torch
from torch import Tensor

from delaykit import ConfigError, checks
from delaykit_lab.tasks.volleys import VolleyTask


@dataclasses.dataclass(frozen=True)
class IntervalDiscrimination(VolleyTask):
    """Two clicks on all fibres, ``shortest + c * spacing`` steps apart in class c.

    A neuron hears the interval if the first click, late by the interval through one fibre, meets the second one through
    another. With jitter s of each spike and F fibres, the interval is known to ``s sqrt(2 / F)``, and the best decision
    between n intervals is right in ``1 - 2 (1 - 1/n) Phi(-spacing / (2 s sqrt(2 / F)))``.

    Args:
        intervals: n, the number of intervals, >= 2.
        fibres: F, the number of channels that carry both clicks, >= 2.
        shortest: shortest interval in steps, > 0.
        spacing: between neighbouring intervals, in steps, > 0.

    Example:
        >>> task = IntervalDiscrimination(intervals=3, fibres=2)
        >>> task.best_delays().tolist()
        [[6.0, 0.0], [9.0, 0.0], [12.0, 0.0]]
    """

    name: ClassVar[str] = "interval"

    intervals: int = 6
    fibres: int = 4
    _: dataclasses.KW_ONLY
    shortest: float = 6.0
    spacing: float = 3.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for field in ("intervals", "fibres"):
            checks.whole(f"IntervalDiscrimination.{field}", getattr(self, field))
        if self.intervals < 2 or self.fibres < 2:
            found = f"{self.intervals} intervals, {self.fibres} fibres"
            raise ConfigError("IntervalDiscrimination", found, "at least two of each", "ask for more of them")
        for field in ("shortest", "spacing"):
            checks.number(f"IntervalDiscrimination.{field}", getattr(self, field), above=0, what="number of steps")

    @property
    def channels(self) -> int:  # type: ignore[override]
        """Number of fibres."""
        return self.fibres

    @property
    def classes(self) -> int:  # type: ignore[override]
        """Number of intervals."""
        return self.intervals

    def lengths(self) -> Tensor:
        """Interval of each class in steps."""
        return self.shortest + self.spacing * torch.arange(self.intervals, dtype=torch.float64)

    def lags(self) -> Tensor:
        second = self.lengths().view(-1, 1, 1).expand(-1, self.fibres, 1)
        return torch.cat([torch.zeros_like(second), second], 2)

    def best_delays(self) -> Tensor:
        """Half of the fibres bring the first click late by the interval, the others the second one at once."""
        late = (torch.arange(self.fibres) < self.fibres // 2).double()
        return self.lengths().unsqueeze(1) * late

    @property
    def steps(self) -> int:
        return 2 * round(float(self.lengths().max())) + 16

    def title(self) -> str:
        return f"{self.intervals} intervals, {self.spacing:g} steps apart, on {self.fibres} fibres"
