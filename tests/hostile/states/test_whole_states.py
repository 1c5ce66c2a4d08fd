"""Rows begin anew where all of their state does: at zero, or as the library makes a fresh one; not by a membrane."""

from __future__ import annotations

import pytest
import torch
from rigs import snn
from torch import nn

import delaykit as dk

norse = pytest.importorskip("norse.torch", reason="carries the states of Norse models")

STEPS, AT = 10, 4
LEAKS = [0.0, 0.2, -65.0]


def frames(rows=2):
    return torch.rand(STEPS, rows, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64) + 0.1


def cell_with(leak):
    cell = norse.LIFRecurrentCell(1, 1, p=norse.LIFParameters(v_th=torch.tensor(1e9), v_leak=torch.tensor(leak)))
    with torch.no_grad():
        cell.input_weights.fill_(1.0)
        cell.recurrent_weights.zero_()
    cell = cell.double()
    return dk.wrap_(cell, {"input": dk.FreeDelay("axonal", max_delay=5, init=3)}, example=frames()[0])


def fresh(cell, state, rows):
    made = cell.initial_state(torch.zeros(len(rows), 1, dtype=torch.float64))
    parts = {k: torch.where(rows, getattr(made, k).detach(), getattr(state, k)) for k in ("z", "v", "i")}
    return state._replace(**parts)


def go(cell, x, change=lambda cell, state: state):
    state, out = None, []
    for t, frame in enumerate(x):
        _, state = cell(frame, state)
        out.append(state.v)
        if t == AT:
            state = change(cell, state)
    return torch.stack(out)


@pytest.mark.parametrize("leak", LEAKS)
@pytest.mark.parametrize("which", [[True, False], [True, True]])
def test_rows_of_a_norse_state_put_back_to_a_fresh_one_begin_anew(leak, which):
    cell, x, rows = cell_with(leak), frames().requires_grad_(), torch.tensor(which).unsqueeze(1)
    got = go(cell, x, lambda cell, state: fresh(cell, state, rows))
    whole, late = go(cell, x), go(cell, x[AT + 1 :])
    want = torch.where(rows, late, whole[AT + 1 :])
    assert not torch.allclose(late, whole[AT + 1 :])
    torch.testing.assert_close(got[AT + 1 :], want)
    grads = [torch.autograd.grad(y.square().sum(), x)[0] for y in (got[AT + 1 :], want)]
    torch.testing.assert_close(*grads)


@pytest.mark.parametrize("leak", LEAKS)
def test_rows_of_a_neuron_in_a_container_put_back_by_hand(leak):
    neuron = norse.LIFCell(norse.LIFParameters(v_th=torch.tensor(1e9), v_leak=torch.tensor(leak)))
    net = norse.SequentialState(nn.Linear(1, 1, bias=False), neuron)
    dk.wrap_(net.double(), {"0": dk.FreeDelay("axonal", max_delay=5, init=3)}, example=frames()[0])

    def run(x, change):
        state, out = None, []
        for t, frame in enumerate(x):
            _, state = net(frame, state)
            out.append(state[1].v)
            if t == AT and change:
                made = neuron.initial_state(frame)
                rows = torch.tensor([[True], [False]])
                parts = {k: torch.where(rows, getattr(made, k).detach(), getattr(state[1], k)) for k in ("v", "i")}
                state = [state[0], state[1]._replace(**parts)]
        return torch.stack(out)

    got, whole, late = run(frames(), True), run(frames(), False), run(frames()[AT + 1 :], False)
    torch.testing.assert_close(got[AT + 1 :, 0], late[:, 0])
    torch.testing.assert_close(got[:, 1], whole[:, 1])


class NorseLoop(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(1, 1, bias=False)
        self.cell = norse.LIFCell(norse.LIFParameters(v_th=torch.tensor(1e9), v_leak=torch.tensor(0.2)))

    def forward(self, x, change):
        state, out = None, []
        for t, frame in enumerate(x):
            _, state = self.cell(self.fc(frame), state)
            if t == AT and change:
                made = self.cell.initial_state(frame)
                rows = torch.tensor([[True], [False]])
                parts = {k: torch.where(rows, getattr(made, k).detach(), getattr(state, k)) for k in ("v", "i")}
                state = state._replace(**parts)
            out.append(state.v)
        return torch.stack(out)


def test_rows_put_back_within_forward_are_refused():
    net = NorseLoop().double()
    dk.wrap_(net, {"fc": dk.FreeDelay("axonal", max_delay=5, init=3)}, example=(frames(), False))
    with pytest.raises(dk.HistoryError, match=r"dk\.reset\(net, rows=mask\)"):
        net(frames(), True)


class Recurrent(nn.Module):
    """A recurrent neuron whose state its loop hands on, and may change at one step."""

    def __init__(self, kind, hidden=False):
        super().__init__()
        extra = {"alpha": 0.4} if kind == "RSynaptic" else {}
        self.hidden = hidden
        self.l = getattr(snn, kind)(beta=0.5, threshold=0.5, linear_features=1, init_hidden=hidden, **extra)
        with torch.no_grad():
            self.l.recurrent.weight.fill_(0.3)
            self.l.recurrent.bias.zero_()

    def forward(self, x, change):
        state, out = list(self.l.reset_mem()), []
        for t, frame in enumerate(x):
            state = change(state) if t == AT else state
            state = list(self.l(frame, *state))
            out.append(state[-1])
        return torch.stack(out)


def behind_a_deque(net):
    """Delay what comes to ``recurrent`` by three steps more; once a step."""
    net.queue = []

    def late(_, given):
        net.queue.append(given[0])
        return net.queue[-4] if len(net.queue) > 3 else torch.zeros_like(given[0])

    net.l.recurrent.register_forward_pre_hook(late)
    return net


def twins(kind):
    net, other = (Recurrent(kind) for _ in range(2))
    dk.wrap_(net, {"l.recurrent": dk.FreeDelay("axonal", max_delay=5, init=3)}, example=(frames().float(), list))
    return net, behind_a_deque(other)


def cut_membrane(state):
    return [state[0], *[v.detach() for v in state[1:]]]


@pytest.mark.parametrize("kind", ["RLeaky", "RSynaptic"])
def test_a_membrane_detached_within_forward_cuts_no_recurrent_line(kind):
    found = []
    for net in twins(kind):
        out = net(frames().float() + 1.0, cut_membrane)
        wanted = [net.l.recurrent.weight, net.l.recurrent.bias]
        found.append([out, *torch.autograd.grad(out[AT:].square().sum(), wanted)])
    torch.testing.assert_close(found[0], found[1])
    assert bool(found[1][1].any())


def zero(k):
    """Put all rows, or the first, to zero in the parts of a state from the ``k``-th on."""
    mask = torch.tensor([[0.0], [1.0]], dtype=torch.float32)
    return [lambda state, m=m: [v if n < k else v * m for n, v in enumerate(state)] for m in (mask, 0 * mask)]


@pytest.mark.parametrize("kind", ["RLeaky", "RSynaptic"])
@pytest.mark.parametrize("rows", [0, 1])
def test_a_membrane_at_zero_empties_a_recurrent_line_beside_spikes_that_were_kept(kind, rows):
    """The membrane alone decides: its rows at zero begin anew; spikes and currents of the state itself go on."""
    x, change, keep = frames().float() + 1.0, zero(1)[rows], torch.tensor([[0.0], [1.0 - rows]])

    def empty(state):  # what the rule says, done to the deque
        other.queue[:] = [spikes * keep for spikes in other.queue]
        return change(state)

    found = []
    for net, do in zip(twins(kind), (change, empty), strict=True):
        other = net
        out = net(x, do)
        found.append([out, *torch.autograd.grad(out.square().sum(), net.l.recurrent.weight)])
    torch.testing.assert_close(found[0], found[1])
    assert not torch.allclose(found[0][0], net(x, change)[0])  # a deque that is not emptied gives something else


@pytest.mark.parametrize("rows", [0, 1])
def test_a_membrane_at_zero_empties_the_line_beside_a_current_that_was_kept(rows):
    net = nn.Sequential(nn.Linear(1, 1), snn.Synaptic(alpha=0.5, beta=0.5, threshold=99.0, init_hidden=True)).double()
    dk.wrap_(net, {"0": dk.FreeDelay("axonal", max_delay=5, init=3)}, example=frames()[0])
    net[1].reset_mem()
    late, syn, mem = [torch.zeros(2, 1).double()] * 4, 0.0, 0.0
    for t, frame in enumerate(frames()):
        if t == AT:
            net[1].mem, mem = zero(0)[rows]([net[1].mem])[0], zero(0)[rows]([mem])[0]
            late = [zero(0)[rows]([spikes])[0] for spikes in late]
        net(frame)
        late = [frame, *late[:-1]]
        syn = 0.5 * syn + net[0].weight * late[3] + net[0].bias
        mem = 0.5 * mem + syn
        torch.testing.assert_close(net[1].mem, mem)


def test_what_empties_a_line_says_that_a_membrane_at_zero_does():
    net = nn.Sequential(nn.Linear(1, 1), snn.Synaptic(alpha=0.5, beta=0.5, init_hidden=True))
    dk.wrap_(net, {"0": dk.FreeDelay("axonal", max_delay=5, init=3)}, example=frames()[0].float())
    assert "mem at zero" in str(dk.status(net))


@pytest.mark.parametrize("by_rows", [False, True])
def test_all_rows_at_rest_are_a_whole_reset_unless_it_is_said_which(by_rows):
    """Row 1 is at rest, its spike of step 2 under way, when row 0 is put to zero by hand."""
    net = nn.Sequential(nn.Linear(1, 1, bias=False), snn.Leaky(beta=0.5, threshold=99.0, init_hidden=True))
    with torch.no_grad():
        net[0].weight.fill_(1.0)
    dk.wrap_(net, {"0": dk.FreeDelay("axonal", max_delay=5, init=3)}, example=torch.zeros(2, 1))
    net[1].reset_mem()
    x, found = torch.zeros(9, 2, 1), []
    x[0, 0], x[2, 1] = 1, 1
    for t, frame in enumerate(x):
        net(frame)
        found.append(float(net[1].mem[1].detach()))
        if t == 3 and by_rows:
            dk.reset(net, rows=torch.tensor([True, False]))
        elif t == 3:
            net[1].mem = net[1].mem * torch.tensor([[0.0], [1.0]])
    assert (found[5] == 1.0) is by_rows
