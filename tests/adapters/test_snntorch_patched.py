"""A method that the user replaced, on a neuron or its class: ``dk.rollout`` and ``dk.fused`` hear it, with delays."""

from __future__ import annotations

import types

import pytest
import torch

import delaykit as dk

snn = pytest.importorskip("snntorch", reason="wraps snntorch models")

from delaykit.adapters.snntorch.dynamics import dynamics_of  # noqa: E402


def fire(self, mem):
    return (mem > 0.3).to(mem)


def mem_reset(self, mem):
    return torch.zeros_like(mem)


def advance(self, *given):
    return 0.25 * self._base_state_function(*given)


def on_instance(name, method):
    return lambda neuron, patch: setattr(neuron, name, types.MethodType(method, neuron))


def on_class(cls, name, method):
    return lambda neuron, patch: patch.setattr(cls, name, method)


WAYS = {
    "fire": on_instance("fire", fire),
    "mem_reset": on_instance("mem_reset", mem_reset),
    "state_function": on_instance("state_function", advance),
    "fire of all": on_class(snn.SpikingNeuron, "fire", fire),
    "mem_reset of all": on_class(snn.SpikingNeuron, "mem_reset", mem_reset),
}


def currents():
    return torch.rand(12, 3, 4, generator=torch.Generator().manual_seed(0))


def neuron():
    torch.manual_seed(0)
    return snn.RLeaky(0.8, threshold=0.5, linear_features=4)


def loop(net, x):
    spikes, mem = net.reset_mem()
    out = []
    for v in x:
        spikes, mem = net(v, spikes, mem)
        out.append(mem)
    return torch.stack(out)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("wrapped", [False, True])
def test_rollout_hears_it(way, wrapped, monkeypatch):
    net, x = neuron(), currents()
    if wrapped:
        net = torch.nn.Sequential(net)
        component = dk.FreeDelay("axonal", max_delay=4, init=2.0)
        dk.wrap_(net, {"0.recurrent": dk.At(component, reset="follow")}, example=lambda: loop(net[0], x))
        net = net[0]
    assert dynamics_of(net) is not None  # as the library made it, it is fused
    before = loop(net, x).detach()
    torch.testing.assert_close(dk.rollout(net, x)[1], before)
    WAYS[way](net, monkeypatch)
    assert dynamics_of(net) is None
    wanted = loop(net, x)
    assert not torch.allclose(wanted, before)  # the patch is one
    torch.testing.assert_close(dk.rollout(net, x)[1], wanted)


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.fc, self.lif = torch.nn.Linear(4, 5), snn.Leaky(0.8, threshold=0.3)

    def forward(self, x):
        mem, out = self.lif.reset_mem(), []
        for v in x:
            _, mem = self.lif(self.fc(v), mem)
            out.append(mem)
        return torch.stack(out)


@pytest.mark.parametrize("way", WAYS)
def test_fused_hears_it_after_its_proof(way, monkeypatch):
    net, x = Net(), currents()
    dk.wrap_(net, {"fc": dk.FreeDelay("axonal", max_delay=4, init=2.0)}, example=x)
    fast = dk.fused(net)
    torch.testing.assert_close(fast(x), net(x))
    WAYS[way](net.lif, monkeypatch)
    torch.testing.assert_close(fast(x), net(x))
