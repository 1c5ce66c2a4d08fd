"""An ordinary Norse classifier: one recurrent cell, looped over time by hand, and a linear readout."""

from __future__ import annotations

import norse.torch as norse
import torch
from torch import Tensor, nn


class NorseNet(nn.Module):
    """Classify spike trains: LIFRecurrentCell -> Linear, class scores summed over time.

    Membrane and synapse have rates of 900 per second at Norse's step of 1 ms, so they forget nine tenths in a step:
    what the net remembers, it remembers by its connections.

    Args:
        channels: number of input channels.
        hidden: number of recurrent neurons.
        classes: number of classes.

    Example:
        >>> net = NorseNet(channels=24, hidden=8, classes=9)
        >>> net(torch.zeros(58, 2, 24)).shape
        torch.Size([2, 9])
    """

    def __init__(self, channels: int, hidden: int, classes: int) -> None:
        super().__init__()
        rate = torch.tensor(900.0)
        neuron = norse.LIFParameters(tau_syn_inv=rate, tau_mem_inv=rate, v_th=torch.tensor(1.0))
        self.cell = norse.LIFRecurrentCell(channels, hidden, p=neuron)
        self.fc_out = nn.Linear(hidden, classes)
        with torch.no_grad():
            self.cell.input_weights *= (hidden / channels) ** 0.5  # norse scales by the hidden size alone
            self.cell.recurrent_weights *= 0.15  # larger ones make training without delays diverge

    def forward(self, spikes: Tensor) -> Tensor:
        """Scores ``(batch, class)`` of spikes ``(time, batch, channel)``."""
        state, scores = None, spikes.new_zeros(spikes.shape[1], self.fc_out.out_features)
        for now in spikes:
            hidden, state = self.cell(now, state)
            scores = scores + self.fc_out(hidden)
        return scores
