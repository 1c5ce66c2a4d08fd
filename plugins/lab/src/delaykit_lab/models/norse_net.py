"""An ordinary Norse classifier: one recurrent cell and a leaky readout, looped over time by hand."""

from __future__ import annotations

import norse.torch as norse
import torch
from torch import Tensor, nn


class NorseNet(nn.Module):
    """Classify spike trains: LIFRecurrentCell -> LILinearCell, class scores summed over time.

    score[b, k] = sum_t softmax(v[t, b])_k, where v is the voltage of the readout, which never spikes.

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
        neuron = norse.LIFParameters(alpha=torch.tensor(20.0), v_th=torch.tensor(0.5))
        self.cell = norse.LIFRecurrentCell(channels, hidden, p=neuron)
        self.readout = norse.LILinearCell(hidden, classes)
        with torch.no_grad():
            self.cell.input_weights *= (hidden / channels) ** 0.5  # norse scales by the hidden size alone
            self.cell.recurrent_weights *= 0.5

    def forward(self, spikes: Tensor) -> Tensor:
        """Scores ``(batch, class)`` of spikes ``(time, batch, channel)``."""
        state = state_out = None
        voltages = []
        for now in spikes:
            hidden, state = self.cell(now, state)
            voltage, state_out = self.readout(hidden, state_out)
            voltages.append(voltage)
        return torch.stack(voltages).softmax(dim=-1).sum(dim=0)
