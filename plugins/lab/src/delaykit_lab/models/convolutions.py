"""A small convolutional network for event cameras: each convolution is followed by leaky neurons and pooling."""

from __future__ import annotations

from collections.abc import Sequence

import snntorch as snn
import torch
from snntorch import surrogate
from torch import Tensor, nn


class ConvNet(nn.Module):
    """Conv2d -> Leaky -> average pooling, repeated, then a linear readout whose scores are summed over time.

    Delays fit its convolutions one a channel: ``--with free:axonal`` before them, ``--with free:dendritic`` behind.

    Args:
        image: polarities, height and width of a frame, ``(p, y, x)``.
        channels: of each convolution.
        classes: number of classes.
        beta: decay of membranes a step.

    Example:
        >>> net = ConvNet((2, 17, 17), (4, 8), 10)
        >>> net(torch.zeros(6, 3, 578)).shape
        torch.Size([3, 10])
    """

    def __init__(self, image: tuple[int, int, int], channels: Sequence[int], classes: int, beta: float = 0.5) -> None:
        super().__init__()
        self.image, self.depth = image, len(channels)
        before, height, width = image
        for layer, size in enumerate(channels, start=1):
            convolution = nn.Conv2d(before, size, 3, padding=1)
            with torch.no_grad():
                convolution.weight *= 3.0
            self.add_module(f"conv{layer}", convolution)
            self.add_module(f"lif{layer}", snn.Leaky(beta=beta, spike_grad=surrogate.atan(alpha=5.0)))
            before, height, width = size, (height + 1) // 2, (width + 1) // 2
        self.pool = nn.AvgPool2d(2, ceil_mode=True)
        self.out = nn.Linear(before * height * width, classes)
        self.forward_sites = tuple(f"conv{layer}" for layer in range(1, self.depth + 1))
        self.recurrent_sites: tuple[str, ...] = ()
        self.whole_sites: tuple[str, ...] = ()

    def forward(self, spikes: Tensor) -> Tensor:
        """Scores ``(batch, class)`` of spikes ``(time, batch, channel)``."""
        membranes = [getattr(self, f"lif{k}").reset_mem() for k in range(1, self.depth + 1)]
        scores = spikes.new_zeros(spikes.shape[1], self.out.out_features)
        for now in spikes:
            frame = now.view(-1, *self.image)
            for k in range(self.depth):
                current = getattr(self, f"conv{k + 1}")(frame)
                fired, membranes[k] = getattr(self, f"lif{k + 1}")(current, membranes[k])
                frame = self.pool(fired)
            scores = scores + self.out(frame.flatten(1))
        return scores
