"""snnTorch, stepped by the loop of its tutorials."""

from __future__ import annotations

from collections.abc import Iterator

import snntorch as snn
import torch
from measure import Way
from torch import Tensor, nn
from work import BETA, THRESHOLD, Work

PACKAGES = ["snntorch==1.0.0"]


class Net(nn.Module):
    """Linear layers and neurons by turns; or one recurrent layer."""

    def __init__(self, work: Work, tensors: dict[str, Tensor]) -> None:
        super().__init__()
        self.recurrent = work.kind == "recurrent"
        pairs = list(zip(work.sizes, work.sizes[1:], strict=False))
        self.connections = nn.ModuleList(nn.Linear(pre, post, bias=False) for pre, post in pairs)
        for k, connection in enumerate(self.connections):
            connection.weight.data.copy_(tensors[f"weight{k}"])
        if self.recurrent:
            self.layer = snn.RLeaky(beta=BETA, threshold=THRESHOLD, linear_features=work.sizes[0])
            self.layer.recurrent.weight.data.copy_(tensors["recurrent"])
            self.layer.recurrent.bias.data.zero_()
        else:
            self.neurons = nn.ModuleList(snn.Leaky(beta=BETA, threshold=THRESHOLD) for _ in pairs)

    def forward(self, x: Tensor) -> Tensor:
        """Give the last layer's spikes at every step."""
        spikes = []
        if self.recurrent:
            passed, membrane = self.layer.init_rleaky()
            for step in x:
                passed, membrane = self.layer(step, passed, membrane)
                spikes.append(passed)
            return torch.stack(spikes)
        membranes = [neuron.reset_mem() for neuron in self.neurons]
        for passed in x:
            for k, (connection, neuron) in enumerate(zip(self.connections, self.neurons, strict=True)):
                passed, membranes[k] = neuron(connection(passed), membranes[k])
            spikes.append(passed)
        return torch.stack(spikes)


def ways(work: Work, tensors: dict[str, Tensor]) -> Iterator[Way]:
    """The loop."""
    net = Net(work, tensors)
    yield Way("loop", net, list(net.parameters()), "next")
