"""Coincidence of k channels: each class is an order in which they fire, drawn once and for all."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import torch
from torch import Tensor

from delaykit import checks
from delaykit_lab.tasks.volleys import VolleyTask


@dataclasses.dataclass(frozen=True)
class Coincidence(VolleyTask):
    """Every channel fires once; class c is a list of lags, uniform in [0, span].

    Args:
        channels: k, the number of channels, >= 2.
        classes: number of lists, >= 2.
        span: largest lag in steps, > 0.
        drawn: seed that draws the lists: another one is another task.

    Example:
        >>> task = Coincidence(channels=3, classes=2)
        >>> delays, accuracy = task.optimum()
        >>> bool((task.lags()[..., 0] + delays).diff(dim=1).abs().max() < 1e-9), accuracy > 0.99
        (True, True)
    """

    name: ClassVar[str] = "coincidence"

    channels: int = 8
    classes: int = 8
    _: dataclasses.KW_ONLY
    span: float = 16.0
    drawn: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        for field, least in (("channels", 2), ("classes", 2)):
            checks.whole(f"Coincidence.{field}", getattr(self, field), least=least)
        checks.number("Coincidence.span", self.span, above=0, what="number of steps", fix="pass e.g. span=10")

    def lags(self) -> Tensor:
        generator = torch.Generator().manual_seed(self.drawn)
        return self.span * torch.rand(self.classes, self.channels, 1, generator=generator, dtype=torch.float64)

    @property
    def steps(self) -> int:
        return round(self.span) + 32  # starts, jitter, and time for the latest delay to arrive

    def title(self) -> str:
        return f"coincidence of {self.channels} channels, {self.classes} orders within {self.span:g} steps"
