"""The SHD recipe's training set, three times the recordings: clean, with shifted channels, blended within a class."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from delaykit_lab.task import Frames

COPIES = 3
SHIFT = 100 / 700  # largest shift as a share of the channels: 100 of 700


@dataclasses.dataclass(frozen=True)
class Tripled:
    """Three samples for each recording, number ``k n + i`` being copy k of recording i of n.

    Copy 0 is the recording. Copy 1 has its channels rolled by U(-SHIFT, SHIFT) of their number. Copy 2 takes each step
    from the recording or from another one of its class, a coin for each.

    Args:
        frames: the recordings.
        generator: source of shifts, partners and coins.
    """

    frames: Frames
    generator: torch.Generator

    def __len__(self) -> int:
        """Number of samples."""
        return COPIES * len(self.frames)

    def batch(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Return float32 spikes ``(time, batch, channel)`` and labels ``(batch,)``."""
        copy, recording = index // len(self.frames), index % len(self.frames)
        spikes, labels = self.frames.batch(recording)
        most = round(SHIFT * spikes.shape[-1])
        for k in (copy == 1).nonzero()[:, 0].tolist():
            shift = int(torch.randint(-most, most + 1, (), generator=self.generator))
            spikes[:, k] = spikes[:, k].roll(shift, -1)
        for k in (copy == 2).nonzero()[:, 0].tolist():
            partners = (self.frames.labels == labels[k]).nonzero()[:, 0]
            partner = partners[torch.randint(len(partners), (), generator=self.generator)]
            own = torch.rand(spikes.shape[0], 1, generator=self.generator) < 0.5
            spikes[:, k] = torch.where(own, spikes[:, k], self.frames.spikes[:, partner].to(spikes))
        return spikes, labels
