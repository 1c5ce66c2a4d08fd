"""Augmentation of training batches: channels shifted, spikes dropped, random spikes added."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from delaykit import ConfigError
from delaykit_lab.declared import Declared
from delaykit_lab.words import nearest, options_of


@dataclasses.dataclass(frozen=True)
class Augment(Declared):
    """What is done to every training batch anew.

    Args:
        shift: each sample's channels are shifted by a whole number in [-shift, shift], as published for spoken digits
            (Cramer et al. 2020: 20 of 700 units; 4 of 140 groups); less than there are channels.
        drop: probability with which a bin loses all its spikes, in [0, 1).
        noise: probability of an additional spike, a channel and a step, in [0, 1).

    Example:
        >>> Augment.parse("shift=4,drop=0.1")
        Augment(shift=4, drop=0.1, noise=0.0)
    """

    shift: int = 0
    drop: float = 0.0
    noise: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.shift < 0:
            raise ConfigError("augment.shift", f"{self.shift}", "a whole number of channels >= 0", "pass e.g. shift=2")
        for name in ("drop", "noise"):
            if not 0 <= getattr(self, name) < 1:
                fix = "pass e.g. 0.1"
                raise ConfigError(f"augment.{name}", f"{getattr(self, name)}", "a probability in [0, 1)", fix)

    @classmethod
    def parse(cls, text: str) -> Augment:
        """Read ``shift=4,drop=0.1``; an empty text is no augmentation."""
        options = options_of("--augment", filter(None, text.split(",")))
        known = [field.name for field in dataclasses.fields(cls)]
        for name in options:
            if name not in known:
                fix = "correct the name"
                raise ConfigError("--augment", f"{name!r}{nearest(name, known)}", f"one of {', '.join(known)}", fix)
        return cls(**options)

    def __call__(self, spikes: Tensor, generator: torch.Generator) -> Tensor:
        """Return another ``(time, batch, channel)``; draws come from ``generator``, a CPU's."""
        if self.shift:
            if self.shift >= spikes.shape[2]:
                expected, fix = f"fewer than the {spikes.shape[2]} channels there are", "pass a smaller shift"
                raise ConfigError("augment.shift", f"{self.shift}", expected, fix)
            by = torch.randint(-self.shift, self.shift + 1, (spikes.shape[1], 1), generator=generator)
            source = torch.arange(spikes.shape[2]) - by
            inside = (source >= 0) & (source < spikes.shape[2])
            index = source.clamp(0, spikes.shape[2] - 1).to(spikes.device).expand_as(spikes)
            spikes = spikes.gather(2, index) * inside.to(spikes)
        if self.drop:
            spikes = spikes * (torch.rand(spikes.shape, generator=generator) >= self.drop).to(spikes)
        if self.noise:
            spikes = spikes + (torch.rand(spikes.shape, generator=generator) < self.noise).to(spikes)
        return spikes
