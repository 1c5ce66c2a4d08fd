"""The plain adapter keeps every law: Linear and convolution layers between neurons that nobody knows."""

from __future__ import annotations

import torch
from hand import spike
from torch import nn

from delaykit.adapters.plain import TorchAdapter
from delaykit.testing import AdapterConformance, LibraryNet


class Own(nn.Module):
    """A model with neurons of its own, the loop inside."""

    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv1d(1, 3, 3), nn.Linear(12, 5)

    def forward(self, x):
        u, v, out = 0.0, 0.0, []
        for step in x:
            u = 0.7 * u + self.conv(step.unsqueeze(1)).flatten(1)
            z = spike(u - 0.3)
            v = 0.8 * v + self.fc(z)
            out.append(torch.cat([u, v], -1))
        return torch.stack(out)


class LoopInside(LibraryNet):
    name, sites = "loop-inside", ("conv", "fc")

    def make(self):
        return Own()

    def run(self, net, spikes):
        return net(spikes)


class LoopOutside(LibraryNet):
    """Nobody tells when a sequence begins, so the user does."""

    name, sites = "manual", ("0", "2")
    options = {"reset": "manual"}

    def make(self):
        return nn.Sequential(nn.Linear(6, 7), nn.Sigmoid(), nn.Linear(7, 4))

    def run(self, net, spikes):
        import delaykit as dk

        if any("dk" in name.split(".") for name, _ in net.named_modules()):
            dk.reset(net)
        return torch.stack([net(step) for step in spikes])


class WholeSequences(LibraryNet):
    name, sites, options, time_dims = "whole-sequences", ("0", "2"), {"time_dim": 0}, {"0": 0, "2": 0}

    def make(self):
        return nn.Sequential(nn.Linear(6, 7), nn.Sigmoid(), nn.Linear(7, 4))

    def run(self, net, spikes):
        return net(spikes)


class TestPlain(AdapterConformance):
    adapter = TorchAdapter
    nets = (LoopInside(), LoopOutside(), WholeSequences())
