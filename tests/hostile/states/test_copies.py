"""Copies and pickles in the middle of a sequence: they begin anew, or raise; no spike under way is lost unnoticed."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from rigs import currents, late, leaky, ones, outer, snn, spikes
from torch import nn

import delaykit as dk

COPIES = {"deepcopy": copy.deepcopy, "pickle": lambda net: pickle.loads(pickle.dumps(net))}  # noqa: S301 - our own
EVERY = pytest.mark.parametrize("act", COPIES.values(), ids=COPIES)


def fires(membrane):
    """A surrogate that pickles, which snnTorch's own do not."""
    return (membrane > 0).float()


def manual():
    net = nn.Sequential(ones(), leaky(init_hidden=True))
    return dk.wrap_(net, {"0": dk.At(late(3), reset="manual")}, example=spikes(1)[0])


BUILDS = {"follow": lambda: outer(3), "manual": manual}
BEGINS = {"follow": lambda net: net[1].reset_mem(), "manual": dk.reset}


def one_step(policy):
    """Return a model whose sequence began with a spike, which is under way."""
    net = BUILDS[policy]()
    net[1].spike_grad = fires
    BEGINS[policy](net)
    net(spikes(1, 0)[0])
    return net


@EVERY
@pytest.mark.parametrize("policy", BUILDS)
def test_a_copy_that_goes_on_without_the_spikes_under_way_is_refused(policy, act):
    with torch.no_grad():
        net = one_step(policy)
        twin = act(act(net))
        with pytest.raises(dk.HistoryError, match="copy of the model"):
            twin(spikes(1)[0])
        BEGINS[policy](twin)
        with currents(twin[0]) as seen:
            twin(spikes(1)[0])
        assert not seen[0].any()
        for _ in range(3):
            with currents(net[0]) as seen:
                net(spikes(1)[0])
    assert float(seen[0]) == 1.0  # the original keeps what is under way


@EVERY
@pytest.mark.parametrize("policy", BUILDS)
def test_a_copy_with_nothing_under_way_goes_on(policy, act):
    net = BUILDS[policy]()
    net[1].spike_grad = fires
    with torch.no_grad():
        BEGINS[policy](net)
        for x in spikes(9, 0):
            net(x)
        act(net)(spikes(1)[0])


def test_a_copy_between_two_calls_of_a_root_is_a_model_like_any():
    class Looped(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.lif = ones(), leaky(init_hidden=True)

        def forward(self, x):
            self.lif.reset_mem()
            return torch.stack([self.lif(self.fc(step)) for step in x])

    net = dk.wrap_(Looped(), {"fc": late(3)}, example=spikes(6))
    with torch.no_grad():
        net(spikes(6, 5))
        twin = copy.deepcopy(net)
        torch.testing.assert_close(twin(spikes(6, 0)), net(spikes(6, 0)))


@EVERY
def test_a_recurrent_loop_remembers_its_neurons_last_spikes(act):
    net = nn.Sequential(ones(), snn.Leaky(0.9, threshold=0.5, init_hidden=True, spike_grad=fires))
    dk.wrap_(net, {"1": dk.Recurrent(late(2), weight=torch.ones(1, 1))}, example=spikes(1)[0])
    with torch.no_grad():
        net[1].reset_mem()
        assert net(spikes(1, 0)[0]).any()
        twin = act(net)
        with pytest.raises(dk.HistoryError, match="copy of the model"):
            twin(spikes(1)[0])


@EVERY
@pytest.mark.parametrize("policy", BUILDS)
def test_a_copy_made_after_a_reset_begins_anew(policy, act):
    with torch.no_grad():
        net = one_step(policy)
        BEGINS[policy](net)
        assert torch.isfinite(act(net)(spikes(1)[0])).all()


@EVERY
def test_a_copied_norse_state_at_rest_may_have_spikes_under_way(act):
    norse = pytest.importorskip("norse.torch", reason="needs Norse, the extra `norse`")
    cell = norse.LIFRecurrentCell(1, 1)
    dk.wrap_(cell, {"input": late(3)}, example=torch.zeros(1, 1))
    with torch.no_grad():
        _, state = cell(spikes(1, 0)[0], None)
        with pytest.raises(dk.HistoryError, match="copy of a state"):
            cell(spikes(1)[0], act(act(state)))
        _, state = cell(spikes(1)[0], None)
        cell(spikes(1)[0], act(state))  # at rest, and nothing under way: it begins a sequence like any
