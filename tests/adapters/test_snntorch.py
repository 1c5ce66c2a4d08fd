"""The snnTorch adapter keeps every law, in the shapes people write their networks."""

from __future__ import annotations

import pytest
import torch
from hand import spike
from torch import nn

from delaykit.testing import AdapterConformance, LibraryNet

snn = pytest.importorskip("snntorch", reason="wraps snntorch models")

from delaykit.adapters.snntorch import SnnTorchAdapter  # noqa: E402


class Sequential(LibraryNet):
    """Hidden states and a loop outside; utils.reset would miss deep copies, which snnTorch does not know of."""

    name, sites, neurons = "sequential", ("0", "2"), {"1": "kept", "3": "kept"}

    def make(self):
        leaky = dict(beta=0.8, init_hidden=True, spike_grad=spike)
        return nn.Sequential(nn.Linear(6, 8), snn.Leaky(**leaky), nn.Linear(8, 5), snn.Leaky(**leaky))

    def run(self, net, spikes):
        for neuron in (net[1], net[3]):
            neuron.reset_mem()
        out = []
        for step in spikes:
            net(step)
            out.append(torch.cat([net[1].mem, net[3].mem], -1))
        return torch.stack(out)


class LoopInside(LibraryNet):
    """States in the forward, one of them with a synaptic current, and a recurrent connection of its own."""

    name, sites = "loop-inside", ("fc1", "lif1.recurrent", "fc2")
    neurons = {"lif1": "kept", "lif2": "kept"}

    def make(self):
        return _Loop()

    def run(self, net, spikes):
        return net(spikes)


class _Loop(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(6, 7), nn.Linear(7, 5)
        self.lif1 = snn.RLeaky(beta=0.7, linear_features=7, spike_grad=spike)
        self.lif2 = snn.Synaptic(alpha=0.6, beta=0.8, spike_grad=spike)

    def forward(self, x):
        spk1, mem1 = self.lif1.reset_mem()
        syn2, mem2 = self.lif2.reset_mem()
        out = []
        for step in x:
            spk1, mem1 = self.lif1(self.fc1(step), spk1, mem1)
            spk2, syn2, mem2 = self.lif2(self.fc2(spk1), syn2, mem2)
            out.append(torch.cat([spk1, mem1, spk2, mem2], -1))
        return torch.stack(out)


class WholeSequences(LibraryNet):
    """A neuron that is called once with time first, and gates that cannot be delayed."""

    name, sites, neurons, time_dims = "whole-sequences", ("0",), {"1": "sequence"}, {"0": 0}

    def make(self):
        return nn.Sequential(nn.Linear(6, 5), snn.StateLeaky(beta=torch.tensor(0.7), channels=5, output=False))

    def run(self, net, spikes):
        found = net(spikes)
        return found if isinstance(found, torch.Tensor) else found[0]


class Gates(LibraryNet):
    """A neuron whose inner connections are gates."""

    name, sites, neurons = "gates", ("fc",), {"lstm": "kept"}
    refused = {"lstm.lstm_cell": "not additive"}

    def make(self):
        return _Gates()

    def run(self, net, spikes):
        return net(spikes)


class _Gates(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.lstm = nn.Linear(6, 6), snn.SLSTM(6, 6, spike_grad=spike, threshold=0.1)

    def forward(self, x):
        syn = mem = x.new_zeros(x.shape[1], 6)
        out = []
        for step in x:
            spk, syn, mem = self.lstm(self.fc(step), syn, mem)
            out.append(torch.cat([spk, mem], -1))
        return torch.stack(out)


class TestSnnTorch(AdapterConformance):
    adapter = SnnTorchAdapter
    nets = (Sequential(), LoopInside(), WholeSequences())


FLOAT32 = "SLSTM.reset_mem makes float32 states, whatever its weights are"


class TestGates(AdapterConformance):
    adapter = SnnTorchAdapter
    nets = (Gates(),)
    skip = {"rest_is_rest": FLOAT32, "rollout_equals_the_step_loop": FLOAT32}
