"""Whole sequences whose delays begin anew with every call, and states that the caller hands on from call to call."""

from __future__ import annotations

import copy

import pytest
import torch
from rigs import late, leaky, ones, spikes
from torch import nn

import delaykit as dk

norse = pytest.importorskip("norse.torch", reason="wraps norse models")

CUT = 6  # of ten steps


def never(kind):
    return kind(p=norse.LIFParameters(v_th=torch.tensor(99.0)))


class WholeNorse(nn.Module):
    """A layer and a neuron that are given whole sequences."""

    def __init__(self):
        super().__init__()
        self.fc, self.lif = ones(), never(norse.LIF)

    def forward(self, x, state=None):
        return self.lif(self.fc(x), state)


class WholeLooped(nn.Module):
    """A layer over the whole sequence, then the steps of a cell."""

    def __init__(self):
        super().__init__()
        self.fc, self.lif = ones(), never(norse.LIFCell)

    def forward(self, x, state=None):
        for current in self.fc(x):
            z, state = self.lif(current, state)
        return z, state


class WholeSnn(nn.Module):
    """The same with a snnTorch neuron that is handed its membrane."""

    def __init__(self):
        super().__init__()
        self.fc, self.lif = ones(), leaky(0.5)

    def forward(self, x, mem=None):
        mem = x.new_zeros(x.shape[1:]) if mem is None else mem
        for current in self.fc(x):
            spk, mem = self.lif(current, mem)
        return spk, mem


class WholeHidden(nn.Module):
    """The same with a membrane that the neuron keeps; the caller resets it."""

    def __init__(self):
        super().__init__()
        self.fc, self.lif = ones(), leaky(0.5, init_hidden=True, output=True)

    def forward(self, x, state=None):
        if state is None:
            self.lif.reset_mem()
        for current in self.fc(x):
            spk, mem = self.lif(current)
        return spk, mem


class Readout(nn.Module):
    """The delayed layer behind the neuron, before nothing."""

    def __init__(self):
        super().__init__()
        quick = norse.LIFParameters(tau_syn_inv=torch.tensor(1000.0), v_th=torch.tensor(1.0))
        self.lif, self.fc = norse.LIF(p=quick), ones()

    def forward(self, x, state=None):
        z, state = self.lif(20 * x, state)
        return self.fc(z), state


MODELS = [WholeNorse, WholeLooped, WholeSnn, WholeHidden, Readout]
KINDS = ["layer", "axonal", "dendritic", "synaptic"]


def wrapped(model, kind="axonal", d=3.0, **options):
    return dk.wrap_(model(), {"fc": dk.At(late(d, kind), **options)}, example=torch.zeros(10, 2, 1))


def mapped(state, change):
    return change(state) if isinstance(state, torch.Tensor) else state._replace(
        **{name: change(value) for name, value in state._asdict().items()}
    )  # fmt: skip


def values(state):
    return state if isinstance(state, torch.Tensor) else state.v


HANDED = {
    "itself": lambda state: state,
    "detached": lambda state: mapped(state, lambda v: v.detach().clone()),
    "edited": lambda state: mapped(state, lambda v: v * 0.9),
    "rows swapped": lambda state: mapped(state, lambda v: v.flip(0)),
    "a row begins anew": lambda state: mapped(state, lambda v: v * torch.tensor([[1.0], [0.0]])),
}


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("kind", KINDS)
def test_spikes_under_way_at_the_end_of_a_call_are_not_lost_in_silence(model, kind):
    """Spikes at 0 and 4, delay 3, calls of 6 and 4 steps: the second would arrive at 7, where delays begin anew."""
    net, x = wrapped(model, kind), spikes(10, (0, 0), (4, 0), batch=2)
    _, state = net(x[:CUT])
    with pytest.raises(dk.HistoryError, match="one call a sequence") as caught:
        net(x[CUT:], state)
    assert "reset='root'" in str(caught.value)


@pytest.mark.parametrize("model", [WholeNorse, WholeLooped, WholeSnn])
@pytest.mark.parametrize("handed", HANDED)
def test_whatever_was_done_to_the_state(model, handed):
    net, x = wrapped(model), spikes(10, (0, 0), (4, 0), batch=2)
    _, state = net(x[:CUT])
    with pytest.raises(dk.HistoryError, match="one call a sequence"):
        net(x[CUT:], HANDED[handed](state))


@pytest.mark.parametrize("model", [WholeNorse, WholeLooped, WholeSnn, WholeHidden])
def test_a_state_at_rest_that_goes_on(model):
    """Nothing has arrived yet, so the state is zero; that it is the state of the last call tells that it goes on."""
    net, x = wrapped(model), spikes(10, (4, 0), batch=2)
    _, state = net(x[:CUT])
    assert not bool(values(state).any())
    with pytest.raises(dk.HistoryError, match="one call a sequence"):
        net(x[CUT:], state)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_under_way_goes_on(model, kind):
    """Spike at 0, delay 3, calls of 6 and 4 steps: as in one call, and nobody is bothered."""
    net, x = wrapped(model, kind), spikes(10, (0, 0), (7, 1), batch=2)
    whole, end = net(x)
    _, state = net(x[:CUT])
    rest, state = net(x[CUT:], state)
    torch.testing.assert_close(rest[-1], whole[-1])
    torch.testing.assert_close(values(state), values(end))


@pytest.mark.parametrize("model", MODELS)
def test_sequences_that_begin_at_rest(model):
    """One call a sequence, spikes under way at the end of each: every one is as the first."""
    net, x = wrapped(model), spikes(6, (0, 0), (4, 0), batch=2)
    first = net(x)
    for _ in range(3):
        for one, two in zip(net(x), first, strict=True):
            torch.testing.assert_close(one if isinstance(one, torch.Tensor) else one.v, values(two))


@pytest.mark.parametrize("model", MODELS)
def test_they_are_lost_where_that_is_asked_for(model):
    net, x = wrapped(model, reset="root"), spikes(10, (0, 0), (4, 0), batch=2)
    _, state = net(x[:CUT])
    net(x[CUT:], state)


def test_a_state_of_ones_own_after_a_reset():
    net, x = wrapped(WholeNorse), spikes(6, (0, 0), (4, 0), batch=2)
    _, state = net(x)
    dk.reset(net)
    net(x, state)


def test_without_an_example():
    net, x = WholeNorse(), spikes(10, (0, 0), (4, 0), batch=2)
    dk.wrap_(net, {"fc": dk.At(late(3, "axonal"), time_dim=0)})
    _, state = net(x[:CUT])
    with pytest.raises(dk.HistoryError, match="one call a sequence"):
        net(x[CUT:], state)


def test_a_copy_knows_what_was_lost():
    net, x = wrapped(WholeNorse), spikes(10, (0, 0), (4, 0), batch=2)
    with torch.no_grad():
        _, state = net(x[:CUT])
    twin = copy.deepcopy(net)  # nets with Norse's parameters are pickled by nobody
    with pytest.raises(dk.HistoryError, match="one call a sequence"):
        twin(x[CUT:], state)


@pytest.mark.parametrize("model", MODELS)
def test_unwrapped_neurons_are_themselves_again(model):
    net = wrapped(model)
    kind = type(model().lif)
    assert type(dk.unwrap_(net).lif) is kind and "_dk" not in vars(net.lif)
