"""An ordinary snnTorch classifier: one recurrent layer and a leaky readout, looped over time by hand."""

from __future__ import annotations

import snntorch as snn
import torch
from snntorch import surrogate
from torch import Tensor, nn


class SnnTorchNet(nn.Module):
    """Classify spike trains: Linear -> RLeaky -> Linear -> leaky readout, class scores summed over time.

    score[b, k] = sum_t softmax(u[t, b])_k, where u is the membrane of the readout, which never spikes.

    Args:
        channels: number of input channels.
        hidden: number of recurrent neurons.
        classes: number of classes.
        beta: membrane decay per step of all neurons, in (0, 1).

    Example:
        >>> net = SnnTorchNet(channels=24, hidden=8, classes=9)
        >>> net(torch.zeros(58, 2, 24)).shape
        torch.Size([2, 9])
    """

    def __init__(self, channels: int, hidden: int, classes: int, beta: float = 0.9) -> None:
        super().__init__()
        self.fc_in = nn.Linear(channels, hidden)
        self.lif = snn.RLeaky(
            beta, linear_features=hidden, spike_grad=surrogate.atan(alpha=5.0), reset_mechanism="zero"
        )
        self.fc_out = nn.Linear(hidden, classes)
        self.readout = snn.Leaky(beta, reset_mechanism="none")
        with torch.no_grad():
            self.fc_in.weight *= 2.0  # torch's default leaves the layer almost silent
            nn.init.orthogonal_(self.lif.recurrent.weight, gain=0.5)

    def forward(self, spikes: Tensor) -> Tensor:
        """Scores ``(batch, class)`` of spikes ``(time, batch, channel)``."""
        batch = spikes.shape[1]
        hidden = membrane = spikes.new_zeros(batch, self.fc_in.out_features)
        potential = spikes.new_zeros(batch, self.fc_out.out_features)
        potentials = []
        for now in spikes:
            hidden, membrane = self.lif(self.fc_in(now), hidden, membrane)
            _, potential = self.readout(self.fc_out(hidden), potential)
            potentials.append(potential)
        return torch.stack(potentials).softmax(dim=-1).sum(dim=0)
