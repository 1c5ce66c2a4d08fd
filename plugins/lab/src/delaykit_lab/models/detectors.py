"""One neuron a class and nothing behind it: the neuron that fires most names the class, so its delays can be read."""

from __future__ import annotations

import snntorch as snn
import torch
from snntorch import surrogate
from torch import Tensor, nn

import delaykit as dk


class Detectors(nn.Module):
    """Linear -> Leaky, scores are spike counts: the coincidence detectors of Jeffress 1948.

    All weights start at ``1.5 / channels``: a whole volley is enough for a spike, half of it is not. What is left to
    find are the delays of ``fc``.

    Args:
        channels: number of input channels.
        classes: number of classes, one neuron each.
        beta: decay of the membrane a step, in [0, 1).

    Example:
        >>> net = Detectors(channels=2, classes=9)
        >>> net(torch.zeros(130, 4, 2)).shape
        torch.Size([4, 9])
    """

    def __init__(self, channels: int, classes: int, beta: float = 0.5) -> None:
        super().__init__()
        self.fc = nn.Linear(channels, classes, bias=False)
        self.forward_sites, self.recurrent_sites, self.whole_sites = ("fc",), (), ("fc",)
        self.lif = snn.Leaky(beta=beta, spike_grad=surrogate.atan(alpha=5.0))
        with torch.no_grad():
            self.fc.weight.fill_(1.5 / channels)

    def forward(self, spikes: Tensor) -> Tensor:
        """Scores ``(batch, class)`` of spikes ``(time, batch, channel)``."""
        return self.layers(spikes)[-1].sum(0)

    def layers(self, spikes: Tensor) -> list[Tensor]:
        """Return the spikes of the input and of the detectors, ``(time, batch, neuron)``."""
        return [spikes, dk.rollout(self.lif, self.fc(spikes))[0]]
