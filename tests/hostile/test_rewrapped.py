"""Unwrapped, wrapped, traced and copied in the middle of a sequence: spikes under way stay so, or it is refused."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from rigs import arrivals, currents, late, leaky, ones, outer, snn, spikes
from torch import nn

import delaykit as dk

RULES = {"0": late(3)}


def again(net, rules=RULES, example=None):
    return dk.wrap_(dk.unwrap_(net), rules, example=torch.zeros(1, 1) if example is None else example)


def running(net, steps=2):
    """Run some steps of a sequence whose first input is a spike."""
    net[1].reset_mem()
    for x in spikes(steps, 0):
        net(x)
    return net


def goes_on(net, steps=4):
    with currents(net[0]) as seen:
        for x in spikes(steps):
            net(x)
    return arrivals(seen)


@pytest.mark.parametrize("steps", [2, 4], ids=["neuron at rest", "neuron not at rest"])
@pytest.mark.parametrize("copied", [False, True])
def test_a_sequence_does_not_go_on_behind_unwrap(steps, copied):
    with torch.no_grad():
        net = outer(3, batch=1)
        net[1].reset_mem()
        for x in spikes(steps, 0, (steps - 1, 0, 0)):
            net(x)
        net = (dk.wrap if copied else dk.wrap_)(dk.unwrap_(net), RULES, example=torch.zeros(1, 1))
        with pytest.raises(dk.HistoryError, match="unwrap_"):
            net(spikes(1)[0])
        net[1].reset_mem()
        assert goes_on(net) == {}


def test_bare_steps_in_between_do_not_hide_it():
    with torch.no_grad():
        net = running(outer(3, batch=1))
        dk.unwrap_(net)(spikes(1, 0)[0])
        dk.wrap_(net, RULES, example=torch.zeros(1, 1))
        with pytest.raises(dk.HistoryError, match="unwrap_"):
            net(spikes(1)[0])


def test_a_reset_before_or_behind_the_next_wrapping_begins_anew():
    with torch.no_grad():
        net = running(outer(3, batch=1), 5)
        dk.unwrap_(net)(spikes(1, 0)[0])
        net[1].reset_mem()
        dk.wrap_(net, RULES, example=torch.zeros(1, 1))
        assert goes_on(net) == {}
        again(running(net))
        dk.reset(net)
        assert goes_on(net) == {}


def test_nothing_under_way_leaves_nothing_behind():
    with torch.no_grad():
        net = running(outer(3, batch=1), 6)
        dk.unwrap_(net)
        assert not [key for module in net.modules() for key in vars(module) if key.startswith("_dk")]
        dk.wrap_(net, RULES, example=torch.zeros(1, 1))
        assert goes_on(net) == {}


def test_a_pickle_of_the_bare_model_needs_no_delaykit():
    net = nn.Sequential(ones(), leaky(init_hidden=True, spike_grad=abs))
    dk.wrap_(net, RULES, example=torch.zeros(1, 1))
    with torch.no_grad():
        dk.unwrap_(running(net))
    assert b"delaykit" not in pickle.dumps(net)


def test_manual_lines_wait_for_their_reset():
    rules = {"0": dk.At(late(3), reset="manual")}
    net = dk.wrap_(nn.Sequential(ones()), rules, example=torch.zeros(1, 1))
    with torch.no_grad():
        net(spikes(1, 0)[0])
        again(net, rules)
        with pytest.raises(dk.HistoryError, match="unwrap_"):
            net(spikes(1)[0])
        dk.reset(net)
        assert goes_on(net) == {}


class Chunks(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.lif = ones(), leaky()

    def forward(self, x, mem):
        for step in x:
            _, mem = self.lif(self.fc(step), mem)
        return mem


class Whole(Chunks):
    def forward(self, x, mem):
        for step in self.fc(x):
            _, mem = self.lif(step, mem)
        return mem


@pytest.mark.parametrize("cls", [Chunks, Whole])
def test_sequences_in_pieces_whose_state_goes_on(cls):
    net = cls()
    rules, example = {"fc": late(3)}, (spikes(4), torch.zeros(1, 1))
    with torch.no_grad():
        dk.wrap_(net, rules, example=example)
        mem = net(spikes(4, 0, (3, 0, 0)), torch.zeros(1, 1))
        again(net, rules, example)
        with pytest.raises(dk.HistoryError, match="under way"):
            net(spikes(4), mem)
        net(spikes(4), torch.zeros(1, 1))


@pytest.mark.parametrize("kind", ["cell", "sequential", "copy"])
def test_norse_states_are_of_the_wrapping_that_made_them(kind):
    norse = pytest.importorskip("norse.torch", reason="needs Norse, the extra `norse`")
    if kind == "cell":
        net, rules = norse.LIFRecurrentCell(1, 1), {"input": late(3)}
    else:
        net, rules = norse.SequentialState(ones(), norse.LICell()), RULES
    dk.wrap_(net, rules, example=torch.zeros(1, 1))
    with torch.no_grad():
        _, state = net(spikes(1, 0)[0], None)
        if kind == "copy":
            net = copy.deepcopy(net)
        else:
            again(net, rules)
        with pytest.raises(dk.HistoryError, match="unwrapped"):
            net(spikes(1)[0], state)


def fires():
    net = nn.Sequential(
        nn.Linear(1, 1, bias=False),
        snn.Leaky(0.5, threshold=1.0, reset_mechanism="zero", reset_delay=False, init_hidden=True),
        nn.Linear(1, 1, bias=False),
        snn.Leaky(0.5, threshold=1.0, reset_mechanism="zero", reset_delay=False, init_hidden=True),
    )
    for layer in (net[0], net[2]):
        nn.init.constant_(layer.weight, 1.5)
    return dk.wrap_(net, {"0": late(3)}, example=torch.zeros(1, 1))


def sequence(net):
    net[1].reset_mem(), net[3].reset_mem()
    for x in torch.ones(8, 1, 1):
        net(x)


def to_nir(net):
    pytest.importorskip("nir", reason="needs NIR, the extra `nir`")
    dk.to_nir(net, lambda: sequence(net), dt_ms=1.0)


def jit(net):
    with pytest.raises(dk.DelaykitError):
        torch.jit.trace(net, torch.zeros(1, 1))


def exported(net):
    with pytest.raises(Exception, match="delaykit"):
        torch.export.export(net, (torch.zeros(1, 1),))


TRACERS = {
    "to_nir": to_nir,
    "plan": lambda net: dk.plan(net, {"2": late(1)}, example=lambda: sequence(net)),
    "wrap_": lambda net: dk.wrap_(net, {"2": late(0)}, example=lambda: sequence(net)),
    "wrap": lambda net: dk.wrap(dk.unwrap_(copy.deepcopy(net)), {"2": late(0)}, example=torch.zeros(1, 1)),
    "fused": lambda net: dk.fused(net, torch.ones(5, 1, 1)),
    "deepcopy": copy.deepcopy,
    "jit.trace": jit,
    "torch.export": exported,
    "status": lambda net: (str(dk.status(net)), repr(net), net.state_dict()),
}


@pytest.mark.parametrize("tracer", TRACERS)
def test_whatever_looks_at_a_model_leaves_the_spikes_under_way(tracer):
    with torch.no_grad():
        net = running(fires())
        TRACERS[tracer](net)
        assert goes_on(net) == {1: 1.5}


def test_whatever_looks_at_a_model_leaves_its_last_call_as_it_was():
    net, example = Chunks(), (spikes(4), torch.zeros(1, 1))
    dk.wrap_(net, {"fc": late(3)}, example=example)
    with torch.no_grad():
        mem = net(spikes(4, 0, (3, 0, 0)), torch.zeros(1, 1))
        dk.plan(net, {"lif": dk.Recurrent(late(1))}, example=example)
        with pytest.raises(dk.HistoryError, match="under way"):
            net(spikes(4), mem)
