"""Which weight counts: that of the arrival where the line lies before the weights, that of the making behind them."""

from __future__ import annotations

import pytest
import torch
from rigs import Loop, arrivals, currents, late, leaky, looped, ones, outer, snn, spikes, stepped
from torch import nn

import delaykit as dk

X = spikes(8, 1, batch=2, pre=2)  # delay 3: made at t 1, arrives at t 4; the weight is 1 before t 3 and 2 from then on
ARRIVES = {"layer": 2.0, "axonal": 2.0, "synaptic": 2.0, "dendritic": 1.0}
POLICIES = ["root", "follow", "manual", "carried"]


def filled(fc):
    with torch.no_grad():
        fc.weight.mul_(2.0)


def replaced(fc):
    fc.weight = nn.Parameter(2 * fc.weight.detach())


def loaded(fc):
    fc.load_state_dict({"weight": 2 * fc.weight.detach()}, strict=False)


def data(fc):
    fc.weight.data = 2 * fc.weight.detach()


def data_filled(fc):
    fc.weight.data.mul_(2.0)


CHANGES = {
    "in place": filled,
    "replaced": replaced,
    "load_state_dict": loaded,
    "data": data,
    "data filled": data_filled,
}


def run(policy, kind, change, gradients):
    context = torch.enable_grad() if gradients else torch.no_grad()
    with context:
        if policy == "root":
            net = looped(3, kind, pre=2, post=2)
            with currents(net.fc) as seen:
                net(X, lambda n, t, mem: (change(n.fc) if t == 3 else None, mem)[1])
            return arrivals(seen)
        if policy == "carried":
            norse = pytest.importorskip("norse.torch", reason="wraps norse models")
            net = norse.SequentialState(ones(2, 2), norse.LICell())
            dk.wrap_(net, {"0": late(3, kind)}, example=lambda: [net(torch.zeros(2, 2), None), None])
            state = None
            with currents(net[0]) as seen:
                for t, x in enumerate(X):
                    if t == 3:
                        change(net[0])
                    _, state = net(x, state)
            return arrivals(seen)
        if policy == "follow":
            net = outer(3, kind, pre=2, post=2)
        else:
            net = nn.Sequential(ones(2, 2), leaky(init_hidden=True))
            dk.wrap_(net, {"0": dk.At(late(3, kind), reset="manual")}, example=torch.zeros(2, 2))
        return arrivals(stepped(net, X, lambda n, t: change(n[0]) if t == 3 else None))


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("kind", ARRIVES)
@pytest.mark.parametrize("policy", POLICIES)
def test_under_no_grad(policy, kind, change):
    assert run(policy, kind, CHANGES[change], False) == {4: ARRIVES[kind]}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("kind", ARRIVES)
@pytest.mark.parametrize("policy", POLICIES)
def test_with_gradients(policy, kind, change):
    """A dendritic current under way leads back to the weight that made it: that graph cannot be handed to another."""
    if kind == "dendritic" and change == "replaced":
        with pytest.raises(dk.HistoryError, match="weight that changed"):
            run(policy, kind, CHANGES[change], True)
    else:
        assert run(policy, kind, CHANGES[change], True) == {4: ARRIVES[kind]}


@pytest.mark.parametrize("spread", [0.0, 1.5])
@pytest.mark.parametrize("kind", ARRIVES)
@pytest.mark.parametrize(("pre", "post"), [(1, 1), (2, 1), (1, 2), (3, 2)])
def test_one_input_or_one_output(pre, post, kind, spread):
    """Where a delay of an output has the shape of one of the layer, or a synapse's that of an output's."""
    net = nn.Sequential(nn.Linear(pre, post, bias=False), leaky(init_hidden=True))
    delay = dk.FreeDelay(kind, max_delay=5, init=3.0, kernel="triangle" if spread else "linear", spread=spread)
    dk.wrap_(net, {"0": delay}, example=torch.zeros(1, pre))
    x = torch.zeros(8, 1, pre)
    x[0] = 1.0

    def of(change):
        net[0].weight.data.fill_(1.0)
        with torch.no_grad():
            return torch.stack(stepped(net, x, lambda n, t: filled(n[0]) if t == 2 and change else None))

    still, changed = of(False), of(True)
    assert bool(still[2:].any())
    assert torch.equal(changed[:2], still[:2]) and torch.allclose(changed[2:], ARRIVES[kind] * still[2:])


@pytest.mark.parametrize("kind", ARRIVES)
def test_over_an_optimizer_step_in_truncated_bptt(kind):
    """Spikes under way meet the new weight; currents under way keep the old one's."""
    net = outer(3, kind, pre=2, post=2)
    delays = net[0].dk.delay.delay.requires_grad_(False)
    optimizer = torch.optim.SGD([net[0].weight], lr=1.0)
    net[1].reset_mem()
    with currents(net[0]) as seen:
        for t in range(3):
            net(X[t])
        net[1].mem.sum().backward()
        net[0].weight.grad = -net[0].weight.detach()
        optimizer.step()  # the weight is 2 now
        net[1].mem = net[1].mem.detach()
        for t in range(3, 8):
            net(X[t])
    assert arrivals(seen) == {4: ARRIVES[kind]} and bool((delays == 3).all())


@pytest.mark.parametrize("kind", ["layer", "axonal", "synaptic"])
def test_gradients_reach_the_weight_that_was_used(kind):
    """A replaced weight in the middle of a graph: the gradient goes to the one that the arrival was multiplied by."""
    net = looped(3, kind, pre=2, post=2)
    old, new = net.fc.weight, nn.Parameter(2 * net.fc.weight.detach())

    def between(n, t, mem):
        if t == 3:
            n.fc.weight = new
        return mem

    out = net(X, between)
    out[4].sum().backward()
    assert float(new.grad[0, 0]) == 1.0 and (old.grad is None or not bool(old.grad.any()))


def test_a_weight_that_is_computed_at_every_step():
    """A local learning rule: w += 0.5 after every step, without gradients."""
    for kind, want in (("axonal", 1 + 0.5 * 4), ("synaptic", 1 + 0.5 * 4), ("dendritic", 1 + 0.5)):
        net = outer(3, kind, pre=2, post=2)

        def learn(net, t):
            if t:
                with torch.no_grad():
                    net[0].weight.add_(0.5 * torch.eye(2))

        with torch.no_grad():
            assert arrivals(stepped(net, X, learn)) == {4: want}, kind


def test_changing_a_weight_in_place_before_backward_says_so():
    """As in plain torch: a tensor that backward needs was changed in place."""
    net = looped(3, pre=2, post=2)
    out = net(X, lambda n, t, mem: (n.fc.weight.data.mul_(2.0) if t == 3 else None, mem)[1])
    with torch.no_grad():
        net.fc.weight.fill_(3.0)
    with pytest.raises((RuntimeError, dk.HistoryError)):
        out[-1].sum().backward()


@pytest.mark.parametrize("kind", ARRIVES)
@pytest.mark.parametrize("way", ["in place", "replaced"])
def test_norse_cells_read_their_weights_at_the_arrival(kind, way):
    """A spike of step 0 arrives at step 3; the weight is twice as large from step 2 on."""
    norse = pytest.importorskip("norse.torch", reason="wraps norse models")
    cell, x = norse.LIFRecurrentCell(2, 2), spikes(5, 0, pre=2)
    with torch.no_grad():
        nn.init.eye_(cell.input_weights), cell.recurrent_weights.zero_()
        dk.wrap_(cell, {"input": late(3, kind)}, example=lambda: cell(torch.zeros(1, 2)))
        state, before = None, 0.0
        for t, step in enumerate(x):
            if t == 2 and way == "replaced":
                cell.input_weights = nn.Parameter(2 * torch.eye(2))
            elif t == 2:
                cell.input_weights.mul_(2.0)
            before = 0.0 if state is None else state.i.sum()
            _, state = cell(step, state)
            if t == 3:
                assert float(before) == 0.0
                assert float(state.i.sum()) == pytest.approx(0.8 * ARRIVES[kind])  # Norse lets it decay at once


def test_a_shared_layer_reads_its_weight_in_every_stream():
    class Views(Loop):
        def forward(self, x, between=None):
            mems, out = [self.lif.reset_mem(), torch.zeros(1, 1)], []
            for t in range(len(x)):
                if t == 3 and between:
                    between(self.fc)
                for k in (0, 1):
                    _, mems[k] = self.lif(self.fc(x[t] * (k + 1)), mems[k])
                out.append(mems)
            return out

    net, x = Views(), spikes(6, 1)
    dk.wrap_(net, {"fc": late(3)}, example=x)
    with torch.no_grad(), currents(net.fc) as seen:
        net(x, filled)
    assert arrivals(seen) == {8: 2.0, 9: 4.0}


def test_a_recurrent_weight_of_a_neuron():
    """``RLeaky.recurrent`` under no_grad: the spike under way meets the new weight."""

    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.lif = snn.RLeaky(0.9, linear_features=2, threshold=0.5)
            nn.init.eye_(self.lif.recurrent.weight), nn.init.zeros_(self.lif.recurrent.bias)

        def forward(self, x, change=None):
            spk, mem = self.lif.reset_mem()
            for t in range(len(x)):
                if t == 2 and change:
                    change(self.lif.recurrent)
                spk, mem = self.lif(x[t], spk, mem)

    for kind, want in ARRIVES.items():
        net = Recurrent()
        dk.wrap_(net, {"lif.recurrent": late(2, kind)}, example=spikes(4, 0, pre=2))
        with torch.no_grad(), currents(net.lif.recurrent) as seen:
            net(spikes(5, 0, pre=2), filled)
        assert arrivals(seen)[3] == want, kind
