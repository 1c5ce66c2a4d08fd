"""A delay or a decay that was replaced by one of another size, by none, or taken out: told by its name, never run."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import delaykit as dk
from delaykit.testing.messages import check_told

snn = pytest.importorskip("snntorch", reason="wraps snntorch models")
norse = pytest.importorskip("norse.torch", reason="wraps Norse models")

X = torch.rand(6, 2, 4, generator=torch.Generator().manual_seed(0))


class Looped(nn.Module):
    """The time loop is inside."""

    def __init__(self):
        super().__init__()
        self.fc, self.lif = nn.Linear(4, 4), snn.RLeaky(0.9, linear_features=4)

    def forward(self, x):
        spikes, mem = self.lif.init_rleaky()
        out = []
        for step in x:
            spikes, mem = self.lif(self.fc(step), spikes, mem)
            out.append(mem)
        return torch.stack(out)


def looped(config):
    return dk.wrap_(Looped(), {"fc": config, "lif.recurrent": config}, example=X)


def stepped(config):
    net = nn.Sequential(nn.Linear(4, 4), snn.Leaky(0.9, init_hidden=True))
    return dk.wrap_(net, {"0": config}, example=X[0])


def carried(config):
    net = norse.SequentialState(nn.Linear(4, 4), norse.LIFRecurrentCell(4, 4))
    return dk.wrap_(net, {"0": config, "1.recurrent": config}, example=X[0])


NETS = {
    "loop inside": (looped, "fc", "fc.dk.delay", X),
    "recurrent": (looped, "lif.recurrent", "lif.recurrent.dk.delay", X),
    "loop outside": (stepped, "0", "0.dk.delay", X[0]), "carried": (carried, "0", "0.dk.delay", X[0]),
    "cell": (carried, "1.recurrent", "1.dk.recurrent.delay", X[0]),
}  # fmt: skip
WAYS = {
    "none": lambda part: setattr(part, "delay", None),
    "gone": lambda part: delattr(part, "delay"),
    "another size": lambda part: setattr(part, "delay", nn.Parameter(torch.zeros(9))),
    "one for all": lambda part: setattr(part, "delay", nn.Parameter(torch.zeros(()))),
    "whole numbers": lambda part: setattr(part, "delay", nn.Parameter(torch.ones_like(part.delay).long(), False)),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", NETS)
def test_a_replaced_delay_is_told_before_anything_runs(kind, way, tmp_path):
    make, site, path, x = NETS[kind]
    net = make(dk.FreeDelay("axonal", max_delay=3))
    WAYS[way](net.get_submodule(path))
    for act in (lambda: net(x), lambda: dk.save(net, tmp_path / "d"), lambda: copy.deepcopy(net)(x)):
        told = str(check_told(act))
        assert site in told and "delay" in told and "(4,)" in told


def test_new_values_and_a_new_parameter_of_the_same_size_run():
    net = stepped(dk.FreeDelay("axonal", max_delay=3, init=1.0))
    net[0].dk.delay.delay = nn.Parameter(torch.full((4,), 2.0))
    other = stepped(dk.FreeDelay("axonal", max_delay=3, init=2.0))
    other[0].load_state_dict(net[0].state_dict())
    for step in X:
        assert torch.equal(net(step), other(step))


@pytest.mark.parametrize("way", ["none", "another size"])
def test_a_replaced_decay_of_a_neuron_is_told(way):
    net = dk.wrap_(nn.Sequential(nn.Linear(4, 4), snn.Leaky(0.9, init_hidden=True)),
                   {"1": dk.TimeConstants("membrane", per="neuron")}, example=X[0])  # fmt: skip
    part = net[1].dk_constants["membrane"]
    part.decay = None if way == "none" else nn.Parameter(torch.full((), 0.5))
    told = str(check_told(lambda: net(X[0])))
    assert "1" in told and "decay" in told and "(4,)" in told
