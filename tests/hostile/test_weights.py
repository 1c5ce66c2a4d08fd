"""Which weight counts: that of the arrival where the line lies before the weights, that of the making behind them."""

from __future__ import annotations

import pytest
import torch
from rigs import Loop, arrivals, currents, late, leaky, looped, ones, outer, snn, spikes, stepped
from torch import nn

import delaykit as dk

X = spikes(8, 1, batch=2)  # delay 3: made at t 1, arrives at t 4; the weight is 1 before t 3 and 2 from then on
ARRIVES = {"layer": 2.0, "axonal": 2.0, "synaptic": 2.0, "dendritic": 1.0}
POLICIES = ["root", "follow", "manual", "carried"]


def filled(fc):
    with torch.no_grad():
        fc.weight.fill_(2.0)


def replaced(fc):
    fc.weight = nn.Parameter(torch.full_like(fc.weight, 2.0))


def loaded(fc):
    fc.load_state_dict({"weight": torch.full_like(fc.weight, 2.0)}, strict=False)


def data(fc):
    fc.weight.data = torch.full_like(fc.weight, 2.0)


def data_filled(fc):
    fc.weight.data.fill_(2.0)


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
            net = looped(3, kind)
            with currents(net.fc) as seen:
                net(X, lambda n, t, mem: (change(n.fc) if t == 3 else None, mem)[1])
            return arrivals(seen)
        if policy == "carried":
            norse = pytest.importorskip("norse.torch", reason="wraps norse models")
            net = norse.SequentialState(ones(), norse.LICell())
            dk.wrap_(net, {"0": late(3, kind)}, example=lambda: [net(torch.zeros(2, 1), None), None])
            state = None
            with currents(net[0]) as seen:
                for t, x in enumerate(X):
                    if t == 3:
                        change(net[0])
                    _, state = net(x, state)
            return arrivals(seen)
        if policy == "follow":
            net = outer(3, kind)
        else:
            net = nn.Sequential(ones(), leaky(init_hidden=True))
            dk.wrap_(net, {"0": dk.At(late(3, kind), reset="manual")}, example=torch.zeros(2, 1))
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
    assert run(policy, kind, CHANGES[change], True) == {4: ARRIVES[kind]}


@pytest.mark.parametrize("kind", ARRIVES)
def test_over_an_optimizer_step_in_truncated_bptt(kind):
    """Spikes under way meet the new weight; currents under way keep the old one's."""
    net = outer(3, kind)
    delays = net[0].dk.delay.delay.requires_grad_(False)
    optimizer = torch.optim.SGD([net[0].weight], lr=1.0)
    net[1].reset_mem()
    with currents(net[0]) as seen:
        for t in range(3):
            net(X[t])
        net[1].mem.sum().backward()
        net[0].weight.grad = torch.full_like(net[0].weight, -1.0)
        optimizer.step()  # the weight is 2 now
        net[1].mem = net[1].mem.detach()
        for t in range(3, 8):
            net(X[t])
    assert arrivals(seen) == {4: ARRIVES[kind]} and bool((delays == 3).all())


@pytest.mark.parametrize("kind", ARRIVES)
def test_gradients_reach_the_weight_that_was_used(kind):
    """A replaced weight in the middle of a graph: the gradient goes to the tensor that was multiplied."""
    net = looped(3, kind)
    old, new = net.fc.weight, nn.Parameter(torch.full((1, 1), 2.0))

    def between(n, t, mem):
        if t == 3:
            n.fc.weight = new
        return mem

    out = net(X, between)
    out[4].sum().backward()
    if kind == "dendritic":
        assert float(old.grad) == 1.0 and new.grad is None or float(new.grad) == 0.0
    else:
        assert float(new.grad) == 1.0 and (old.grad is None or float(old.grad) == 0.0)


def test_a_weight_that_is_computed_at_every_step():
    """A local learning rule: w += 0.5 after every step, without gradients."""
    for kind, want in (("axonal", 1 + 0.5 * 4), ("synaptic", 1 + 0.5 * 4), ("dendritic", 1 + 0.5)):
        net = outer(3, kind)

        def learn(net, t):
            if t:
                with torch.no_grad():
                    net[0].weight.add_(0.5)

        with torch.no_grad():
            assert arrivals(stepped(net, X, learn)) == {4: want}, kind


def test_changing_a_weight_in_place_before_backward_says_so():
    """As in plain torch: a tensor that backward needs was changed in place."""
    net = looped(3)
    out = net(X, lambda n, t, mem: (n.fc.weight.data.fill_(2.0) if t == 3 else None, mem)[1])
    with torch.no_grad():
        net.fc.weight.fill_(3.0)
    with pytest.raises((RuntimeError, dk.HistoryError)):
        out[-1].sum().backward()


@pytest.mark.parametrize("slot", ["input_weights", "recurrent_weights"])
@pytest.mark.parametrize("kind", ARRIVES)
@pytest.mark.parametrize("way", ["in place", "replaced"])
def test_norse_cells_read_their_weights_at_the_arrival(slot, kind, way):
    norse = pytest.importorskip("norse.torch", reason="wraps norse models")
    torch.manual_seed(0)
    cell = norse.LIFRecurrentCell(1, 1).double()
    with torch.no_grad():
        cell.input_weights.fill_(20.0), cell.recurrent_weights.fill_(8.0)
    dk.wrap_(cell, {slot.removesuffix("_weights"): late(3, kind)}, example=lambda: cell(torch.ones(1, 1).double()))
    factor, seen = {}, []
    for changed in (False, True):
        state, trace = None, []
        with torch.no_grad():
            getattr(cell, slot).fill_(20.0 if slot == "input_weights" else 8.0)
            for t in range(9):
                if changed and t == 2:
                    if way == "replaced":
                        setattr(cell, slot, nn.Parameter(getattr(cell, slot) * 1.01))
                    else:
                        getattr(cell, slot).mul_(1.01)
                _, state = cell((torch.arange(1) + (t == 0)).double().reshape(1, 1), state)
                trace.append(state.i.item())
        seen.append(trace)
        factor[changed] = trace
    if slot == "input_weights":  # the only input spike is made at 0 and arrives at 3
        jump = [seen[k][3] - 0.8 * seen[k][2] for k in (0, 1)]
        assert jump[1] / jump[0] == pytest.approx(1.0 if kind == "dendritic" else 1.01)


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
            self.lif = snn.RLeaky(0.9, linear_features=1, threshold=0.5)
            nn.init.ones_(self.lif.recurrent.weight), nn.init.zeros_(self.lif.recurrent.bias)

        def forward(self, x, change=None):
            spk, mem = self.lif.reset_mem()
            for t in range(len(x)):
                if t == 2 and change:
                    change(self.lif.recurrent)
                spk, mem = self.lif(x[t], spk, mem)

    for kind, want in ARRIVES.items():
        net = Recurrent()
        dk.wrap_(net, {"lif.recurrent": late(2, kind)}, example=spikes(4, 0))
        with torch.no_grad(), currents(net.lif.recurrent) as seen:
            net(spikes(5, 0), filled)
        assert arrivals(seen)[3] == want, kind
