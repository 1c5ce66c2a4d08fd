"""Delays, spreads and taps that change between steps count from the step of the change, as weights do."""

from __future__ import annotations

import pytest
import torch
from queue_reference import Line
from rigs import arrivals, currents, late, leaky, looped, outer, spikes, stepped
from torch import nn

import delaykit as dk

KINDS = ["layer", "axonal", "dendritic", "synaptic"]
X = spikes(9, 0)


def written(part):
    with torch.no_grad():
        part.delay.fill_(5.0)


def replaced(part):
    part.delay = nn.Parameter(torch.full_like(part.delay, 5.0))


def loaded(part):
    part.load_state_dict({**part.state_dict(), "delay": torch.full_like(part.delay, 5.0)})


def data(part):
    part.delay.data.fill_(5.0)


CHANGES = {"written": written, "replaced": replaced, "loaded": loaded, "data": data}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("gradients", [False, True])
def test_a_longer_delay_holds_what_is_under_way(kind, change, gradients):
    """But a dendritic current on its way leads back to the weight that made it: that graph belongs to one delay."""
    with torch.set_grad_enabled(gradients):
        net = outer(3, kind, batch=1)
        change_it = lambda n, t: CHANGES[change](n[0].dk.delay) if t == 2 else None  # noqa: E731
        if kind == "dendritic" and gradients:
            with pytest.raises(dk.HistoryError, match="a weight that changed, or a delay.*dk.detach"):
                stepped(net, X, change_it)
        else:
            assert arrivals(stepped(net, X, change_it)) == {5: 1.0}


@pytest.mark.parametrize("kind", KINDS)
def test_a_shorter_delay_lets_late_spikes_pass(kind):
    """A spike of 4 steps ago has passed a line of 2: it arrives no more, as with a queue."""
    net = looped(5, kind, batch=1)
    x = spikes(9, 0, (3, 0, 0))

    def between(n, t, mem):
        if t == 4:
            n.fc.dk.delay.delay.fill_(2.0)
        return mem

    with torch.no_grad(), currents(net.fc) as seen:
        net(x, between)
    assert arrivals(seen) == {5: 1.0}


def test_taps_of_a_motif_are_weights():
    motifs = pytest.importorskip("delaykit_motifs", reason="needs the plugin delaykit-motifs")
    net = outer(3)
    dk.unwrap_(net)
    dk.wrap_(net, {"0": motifs.Motif(depth=5)}, example=torch.zeros(1, 1))

    def change(n, t):
        if t == 2:
            n[0].dk.delay.taps.copy_(torch.arange(1.0, 5.0).view_as(n[0].dk.delay.taps))

    with torch.no_grad():
        assert arrivals(stepped(net, X, change)) == {0: 1.0, 2: 2.0, 3: 3.0, 4: 4.0}


def test_a_delay_that_changes_within_a_graph_is_refused():
    net = nn.Sequential(outer(3, batch=1))[0]
    x = X.clone().requires_grad_()
    with pytest.raises(dk.HistoryError, match="or a delay"):
        stepped(net, x, lambda n, t: written(n[0].dk.delay) if t == 2 else None)


def test_norse_states_meet_the_new_delay():
    norse = pytest.importorskip("norse.torch", reason="needs Norse, the extra `norse`")
    net = norse.SequentialState(nn.Linear(1, 1, bias=False), norse.LICell())
    nn.init.ones_(net[0].weight)
    dk.wrap_(net, {"0": late(3)}, example=torch.zeros(1, 1))
    state = None
    with torch.no_grad(), currents(net[0]) as seen:
        for t, x in enumerate(X):
            if t == 2:
                written(net[0].dk.delay)
            _, state = net(x, state)
    assert arrivals(seen) == {5: 1.0}


DELAYS = {"layer": 1.5, "axonal": [2.0, 0.7], "dendritic": [1.0, 2.6], "synaptic": [[2.0, 1.3], [0.4, 3.0]]}


def learned(net, x, weight, delay, learns):
    """Run with weight and delay that learn in some steps only; return their gradients."""
    net[1].reset_mem()
    loss = 0.0
    for t, (frame, on) in enumerate(zip(x, learns, strict=True)):
        weight.requires_grad_(on), delay.requires_grad_(on)
        net(frame)
        loss = loss + (t + 1) * net[1].mem.square().sum()
    for one in (weight, delay):
        one.grad = None
        one.requires_grad_(True)
    if loss.requires_grad:
        loss.backward()
    return [weight.grad, delay.grad]


@pytest.mark.parametrize("kind", DELAYS)
@pytest.mark.parametrize("pattern", ["later", "until then"])
def test_what_learns_from_some_step_on_has_its_gradients_from_there(kind, pattern):
    """A weight is asked at the step that uses it; currents under way may lead back to one that learnt."""
    learns = [t >= 4 for t in range(9)] if pattern == "later" else [t < 4 for t in range(9)]
    torch.manual_seed(0)
    nets = [nn.Sequential(nn.Linear(2, 2, bias=False), leaky(init_hidden=True)).double() for _ in range(2)]
    nets[1].load_state_dict(nets[0].state_dict())
    x, delay = torch.rand(9, 3, 2, dtype=torch.float64), torch.tensor(DELAYS[kind], dtype=torch.float64)
    line = Line(nets[1][0], delay.clone(), kind)
    want = learned(nets[1], x, nets[1][0].weight, line.delay, learns)
    rule = dk.FreeDelay(kind, max_delay=4, init=DELAYS[kind])
    dk.wrap_(nets[0], {"0": rule}, example=torch.zeros(3, 2, dtype=torch.float64))
    try:
        got = learned(nets[0], x, nets[0][0].weight, nets[0][0].dk.delay.delay, learns)
    except dk.HistoryError as error:
        assert kind == "dendritic" and pattern == "until then", error
        return
    torch.testing.assert_close(got[0], want[0], rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(got[1].reshape(want[1].shape), want[1], rtol=1e-6, atol=1e-9)
