"""A list of states with None where a bare SequentialState has it: what is under way in that line must not be lost."""

from __future__ import annotations

import copy

import pytest
import torch
from rigs import late, ones, spikes
from torch import nn

import delaykit as dk

norse = pytest.importorskip("norse.torch", reason="wraps norse models")


def container(granularity="axonal", layers=1):
    parts = [part for _ in range(layers) for part in (ones(), norse.LICell())]
    net = norse.SequentialState(*parts)
    return dk.wrap_(net, {str(2 * k): late(3, granularity) for k in range(layers)}, example=spikes(1)[0])


def run(net, x, state=None, between=lambda t, state: state):
    out = []
    with torch.no_grad():
        for t, step in enumerate(x):
            y, state = net(step, between(t, state))
            out.append(y.item())
    return out, state


X = spikes(10, 0, 4)  # behind step 5 the neuron runs, and the spike of step 4 is under way
DROPS = {
    "a new list": lambda state: [None, *state[1:]],
    "neurons alone": lambda state: [entry if isinstance(entry, tuple) else None for entry in state],
    "of two lists": lambda state: [None] + [copy.copy(entry) for entry in state[1:]],
}


def in_place(state):
    state[0] = None
    return state


@pytest.mark.parametrize("granularity", ["axonal", "dendritic", "synaptic"])
@pytest.mark.parametrize("drop", [*DROPS.values(), in_place], ids=[*DROPS, "in place"])
@pytest.mark.parametrize("time", [2, 6], ids=["beside a state at rest", "beside a running one"])
def test_an_entry_left_out_is_refused_while_spikes_are_under_way(granularity, drop, time):
    net = container(granularity)
    with pytest.raises(dk.HistoryError, match=r"0 of SequentialState.*None for this connection's entry"):
        run(net, X, None, lambda t, state: drop(state) if t == time else state)


@pytest.mark.parametrize("layers", [1, 2])
def test_the_entry_of_each_connection_counts(layers):
    net = container(layers=layers)
    index = 2 * (layers - 1)
    with pytest.raises(dk.HistoryError, match=f"{index} of SequentialState"):
        run(net, X, None, lambda t, s: [None if k == index else v for k, v in enumerate(s)] if t == 6 else s)


def test_with_nothing_under_way_it_goes_on():
    x = spikes(12, 0, 8)  # the first arrives at 3; left out at 6
    want, _ = run(container(), x)
    got, _ = run(container(), x, None, lambda t, state: [None, state[1]] if t == 6 else state)
    assert got == want and got[11] > 0


@pytest.mark.parametrize("begin", [lambda s: None, lambda s: [None, None]], ids=["None", "all entries None"])
def test_a_list_that_begins_anew_in_all_entries_is_a_beginning(begin):
    net = container()
    want, _ = run(net, X[:4])
    got, _ = run(net, torch.cat([X[:6], X[:4]]), None, lambda t, s: begin(s) if t == 6 else s)
    assert got[6:] == want and got[9] > 0


def test_a_state_at_rest_by_hand_begins_where_no_step_left_one_with_spikes_under_way():
    net = container()
    _, state = run(net, X[:6])
    fresh = type(net[1].state_fallback(torch.zeros(1, 1)))(torch.zeros(1, 1), torch.zeros(1, 1))
    want, _ = run(net, X[:4])
    got, _ = run(net, X[:4], [None, fresh])
    assert got == want and got[3] > 0


def test_running_states_of_ones_own_begin_a_sequence_behind_dk_reset():
    net = container()
    _, state = run(net, X[:6])
    own = state[1]._replace(v=torch.ones(1, 1))
    with pytest.raises(dk.HistoryError, match="dk.reset"):
        run(net, X[:4], [None, own])
    dk.reset(net)
    got, _ = run(net, X[:4], [None, own])
    bare = dk.unwrap_(copy.deepcopy(net))
    want, _ = run(bare, torch.cat([spikes(3), X[:1]]), [None, own])
    assert got == want


def test_another_sequence_in_between_and_a_copy_do_not_hide_it():
    net = container()
    _, state = run(net, X[:6])
    run(net, spikes(1))
    for one in (net, copy.deepcopy(net)):
        with pytest.raises(dk.HistoryError, match="None for this connection's entry"):
            run(one, X[:1], [None, state[1]])


def test_an_entry_behind_the_last_neuron_counts_with_that():
    net = norse.SequentialState(norse.LICell(), nn.Linear(1, 1))
    dk.wrap_(net, {"1": dk.At(late(3), reset="carried")}, example=spikes(1)[0])
    with pytest.raises(dk.HistoryError, match="1 of SequentialState"):
        run(net, spikes(4, 0), None, lambda t, state: [state[0], None] if t == 3 else state)
