"""An ordinary snnTorch classifier: one recurrent layer, looped over time by hand, and a linear readout."""

from __future__ import annotations

import snntorch as snn
import torch
from snntorch import surrogate
from torch import Tensor, nn


class SnnTorchNet(nn.Module):
    """Classify spike trains: Linear -> RLeaky -> Linear, class scores summed over time.

    The recipe of Queant et al. 2025 (arXiv 2509.24852) for spoken commands: membrane time constant 2 steps
    (V decays by 1 - 1/2 a step), threshold 1, soft reset, sum of the scores. One hidden layer, not three.

    Args:
        channels: number of input channels.
        hidden: number of recurrent neurons.
        classes: number of classes.

    Example:
        >>> net = SnnTorchNet(channels=24, hidden=8, classes=9)
        >>> net(torch.zeros(58, 2, 24)).shape
        torch.Size([2, 9])
    """

    def __init__(self, channels: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.fc_in = nn.Linear(channels, hidden)
        self.lif = snn.RLeaky(beta=0.5, linear_features=hidden, spike_grad=surrogate.atan(alpha=5.0))
        self.fc_out = nn.Linear(hidden, classes)
        with torch.no_grad():
            self.fc_in.weight *= 3.0  # torch's default leaves the layer almost silent
            nn.init.orthogonal_(self.lif.recurrent.weight, gain=0.5)

    def forward(self, spikes: Tensor) -> Tensor:
        """Scores ``(batch, class)`` of spikes ``(time, batch, channel)``."""
        hidden = membrane = spikes.new_zeros(spikes.shape[1], self.fc_in.out_features)
        scores = spikes.new_zeros(spikes.shape[1], self.fc_out.out_features)
        for now in spikes:
            hidden, membrane = self.lif(self.fc_in(now), hidden, membrane)
            scores = scores + self.fc_out(hidden)
        return scores
