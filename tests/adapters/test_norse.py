"""The Norse adapter keeps every law, in the shapes people write their networks."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from delaykit.testing import AdapterConformance, LibraryNet
from delaykit.testing.adapters.library_net import late

pytest.importorskip("norse", reason="wraps Norse models")
from norse.torch import LIFBoxCell, LIFCell, LIFParameters, LIFRecurrentCell, SequentialState  # noqa: E402
from norse.torch.functional.lif_box import LIFBoxParameters  # noqa: E402

from delaykit.adapters.norse import NorseAdapter  # noqa: E402

FAST = dict(tau_mem_inv=torch.tensor(600.0), tau_syn_inv=torch.tensor(400.0), v_th=torch.tensor(0.2))


class Sequence(LibraryNet):
    """SequentialState and a loop outside: all histories are carried."""

    name, sites, neurons = "sequential-state", ("0", "2"), {"1": "carried", "3": "carried"}

    def make(self):
        box = LIFBoxParameters(tau_mem_inv=FAST["tau_mem_inv"], v_th=FAST["v_th"])
        return SequentialState(nn.Linear(6, 8), LIFCell(LIFParameters(**FAST)), nn.Linear(8, 5), LIFBoxCell(box))

    def run(self, net, spikes):
        state, out = None, []
        for step in spikes:
            spike, state = net(step, state)
            out.append(torch.cat([spike, state[1].v, state[3].v], -1))
        return torch.stack(out)


class Loop(nn.Module):
    """A recurrent cell and one behind it."""

    def __init__(self):
        super().__init__()
        self.cell, self.fc = LIFRecurrentCell(6, 7, p=LIFParameters(**FAST)), nn.Linear(7, 5)
        with torch.no_grad():
            self.cell.input_weights.mul_(2.0)
            self.cell.recurrent_weights.mul_(2.0)
        self.lif = LIFCell(LIFParameters(**FAST))

    def forward(self, x):
        state = other = None
        out = []
        for step in x:
            z, state = self.cell(step, state)
            spike, other = self.lif(self.fc(z), other)
            out.append(torch.cat([z, state.v, spike, other.v], -1))
        return torch.stack(out)


class LoopInside(LibraryNet):
    """A cell whose weights are parameters, not modules."""

    name, sites = "loop-inside", ("cell.input", "cell.recurrent", "fc")
    neurons = {"cell": "carried", "lif": "carried"}

    def make(self):
        return Loop()

    def run(self, net, spikes):
        return net(spikes)

    def by_hand(self, net, spikes, delays, granularity):
        """Norse's ``lif_step``, whose reset is detached; its delayed currents are without bias, so both lines agree."""
        from norse.torch.functional.threshold import threshold

        p, dt = net.cell.p, net.cell.dt
        ins, backs, outs, out = [], [], [], []
        v = i = z = spikes.new_zeros(spikes.shape[1], 7)
        other = None
        for step in spikes:
            ins.append(step @ net.cell.input_weights.T)
            backs.append(z @ net.cell.recurrent_weights.T)
            jump = i + late(ins, delays["cell.input"]) + late(backs, delays["cell.recurrent"])
            v, i = v + dt * p.tau_mem_inv * (p.v_leak - v + jump), jump - dt * p.tau_syn_inv * jump
            z = threshold(v - p.v_th, p.method, p.alpha)
            v = (1 - z.detach()) * v + z.detach() * p.v_reset
            outs.append(z @ net.fc.weight.T)
            spike, other = net.lif(late(outs, delays["fc"]) + net.fc.bias, other)
            out.append(torch.cat([z, v, spike, other.v], -1))
        return torch.stack(out)


class TestNorse(AdapterConformance):
    adapter = NorseAdapter
    nets = (Sequence(), LoopInside())
