"""Norse cells and layers with weights of their own, new recurrent connections, against delays written out by hand."""

from __future__ import annotations

import hand
import pytest
import torch
from hand import HIDDEN, POST, PRE
from torch import nn
from torch.utils import _pytree

import delaykit as dk

norse = pytest.importorskip("norse.torch", reason="wraps Norse models")
from norse.torch.functional.izhikevich import tonic_spiking  # noqa: E402

RECURRENT = [
    "LIFRecurrent",
    "LSNNRecurrent",
    "LIFAdExRecurrent",
    "LIFExRecurrent",
    "LIFRefracRecurrent",
    "LIFAdExRefracRecurrent",
    "IzhikevichRecurrent",
]


def make(name, *sizes, **more):
    return getattr(norse, name)(*sizes, *([tonic_spiking] if "Izhikevich" in name else []), **more).double()


def recurrent(kind, sequence, weights=None):
    more = {} if weights is None else {"input_weights": weights[0], "recurrent_weights": weights[1]}
    return make(kind + ("" if sequence else "Cell"), PRE, HIDDEN, **more)


class HandRecurrent:
    """Norse's own step, fed with currents that were delayed by hand: identity input and no recurrent weights."""

    def __init__(self, kind, inputs, recurrence):
        self.cell = make(kind + "Cell", HIDDEN, HIDDEN, autapses=True)
        self.cell.input_weights = nn.Parameter(torch.eye(HIDDEN).double())
        self.cell.recurrent_weights = nn.Parameter(torch.zeros(HIDDEN, HIDDEN).double())
        self.inputs, self.recurrence = inputs, recurrence

    def __call__(self, x):
        self.inputs.clear()
        self.recurrence.clear()
        state, z, out = None, torch.zeros(x.shape[1], HIDDEN).double(), []
        for step in x:
            z, state = self.cell(self.inputs(step) + self.recurrence(z), state)
            out.append(z)
        return torch.stack(out), state


def late_linear(weight, granularity, which="mixed"):
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False).double()
    linear.weight = nn.Parameter(weight.detach().clone())
    return hand.HandDelayed(linear, hand.values(which, linear, granularity), granularity)


def lively_recurrent(kind, granularity, which="mixed"):
    """Weights at which the hand-made loop fires at 2-30 %."""
    x = hand.spikes_in(rate=0.5)
    for seed in range(100):
        torch.manual_seed(seed)
        scale = 20.0 if "Izhikevich" in kind else 1.0  # membranes in millivolts
        win = scale * 10.0 ** torch.rand(()) * (torch.randn(HIDDEN, PRE) + 0.6).double()
        rec = (3 * torch.randn(HIDDEN, HIDDEN)).double().fill_diagonal_(0.0)
        twin = HandRecurrent(kind, late_linear(win, granularity, which), late_linear(rec, granularity, which))
        with torch.no_grad():
            rate = float(twin(x)[0].mean())
        if 0.02 <= rate <= 0.3:
            return twin, win, rec
    raise AssertionError(f"{kind} never fires at 2-30 %")


def membrane(state):
    return next(s.v for s in (state, *state) if hasattr(s, "v"))  # nested in the refractory states


def assert_same_recurrence(run, cell, twin, x):
    """Spikes, last membrane and all gradients of one sequence."""
    (got, mine), (want, theirs) = run(x), twin(x)
    hand.assert_same(got, want)
    hand.assert_same(membrane(mine), membrane(theirs))
    weights = [cell._parameters["input_weights"], cell._parameters["recurrent_weights"]]
    own = [*weights, cell.dk["input"].delay.delay, cell.dk["recurrent"].delay.delay]
    hand_made = [twin.inputs.module.weight, twin.recurrence.module.weight, twin.inputs.delay, twin.recurrence.delay]
    cotangent = torch.randn(want.shape, generator=torch.Generator().manual_seed(1)).double()
    grads = [
        list(torch.autograd.grad((y * cotangent).sum() + membrane(s).sum(), p))
        for y, s, p in ((got, mine, own), (want, theirs, hand_made))
    ]
    grads[1][1] = grads[1][1].clone().fill_diagonal_(0.0)  # Norse allows no autapses
    assert bool(grads[1][2].any() and grads[1][3].any())
    hand.assert_same(*grads)


def step_by_step(cell):
    def run(x):
        state, out = None, []
        for step in x:
            z, state = cell(step, state)
            out.append(z)
        return torch.stack(out), state

    return run


@pytest.mark.parametrize("granularity", ["axonal", "synaptic"])
@pytest.mark.parametrize("sequence", [False, True], ids=["cell", "sequence"])
@pytest.mark.parametrize("kind", RECURRENT)
def test_delayed_recurrence(kind, sequence, granularity):
    twin, win, rec = lively_recurrent(kind, granularity)
    cell = recurrent(kind, sequence, (nn.Parameter(win.clone()), nn.Parameter(rec.clone())))
    run = cell if sequence else step_by_step(cell)
    x = hand.spikes_in(rate=0.5)
    rules = {slot: dk.FreeDelay(granularity, max_delay=9, init=2.0) for slot in ("input", "recurrent")}
    dk.wrap_(cell, rules, example=lambda: run(x))
    with torch.no_grad():
        cell.dk["input"].delay.delay.copy_(twin.inputs.delay)
        cell.dk["recurrent"].delay.delay.copy_(twin.recurrence.delay)
    for data in (x, x, hand.spikes_in(9, 2, seed=4, rate=0.5)):
        assert_same_recurrence(run, cell, twin, data)


def delayed_lif(which="mixed"):
    twin, win, rec = lively_recurrent("LIFRecurrent", "axonal", which)
    cell = recurrent("LIFRecurrent", False, (nn.Parameter(win.clone()), nn.Parameter(rec.clone())))
    rules = {slot: dk.FreeDelay("axonal", max_delay=9, init=2.0) for slot in ("input", "recurrent")}
    dk.wrap_(cell, rules, example=lambda: step_by_step(cell)(hand.spikes_in(4)))
    with torch.no_grad():
        cell.dk["input"].delay.delay.copy_(twin.inputs.delay)
        cell.dk["recurrent"].delay.delay.copy_(twin.recurrence.delay)
    return cell, twin


def test_states_of_two_streams_do_not_mix():
    cell, twin = delayed_lif()
    x = hand.spikes_in(rate=0.5)
    one = two = None
    left, right = [], []
    for step in x:
        z, one = cell(step, one)
        left.append(z)
        z, two = cell(step.flip(-1), two)
        right.append(z)
    hand.assert_same(torch.stack(left), twin(x)[0])
    hand.assert_same(torch.stack(right), twin(x.flip(-1))[0])


CHANGES = {
    "_replace": lambda s: s._replace(v=s.v * 1.0),
    "tree_map": lambda s: _pytree.tree_map(lambda t: t * 1.0, s),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_state_keeps_its_history(change):
    cell, twin = delayed_lif()
    x, state, out = hand.spikes_in(rate=0.5), None, []
    for step in x:
        z, state = cell(step, state)
        state = CHANGES[change](state)
        out.append(z)
    hand.assert_same(torch.stack(out), twin(x)[0])


def test_detached_state_keeps_late_spikes_and_cuts_the_graph():
    cell, twin = delayed_lif()
    x = hand.spikes_in(15, rate=0.5)
    state, z = None, torch.zeros(hand.BATCH, HIDDEN).double()
    mirror = None
    twin.inputs.clear()
    twin.recurrence.clear()
    for segment in x.split(5):
        if state is not None:
            state = _pytree.tree_map(lambda t: t.detach(), state)
            mirror = _pytree.tree_map(lambda t: t.detach(), mirror)
            z = z.detach()
            twin.inputs.detach()
            twin.recurrence.detach()
        got, want = [], []
        for step in segment:
            y, state = cell(step, state)
            got.append(y)
            z, mirror = twin.cell(twin.inputs(step) + twin.recurrence(z), mirror)
            want.append(z)
        hand.assert_same(torch.stack(got), torch.stack(want))
        pairs = ((got, cell.dk["recurrent"].delay.delay), (want, twin.recurrence.delay))
        grads = [torch.autograd.grad((torch.stack(y) * torch.arange(1.0, HIDDEN + 1)).sum(), p)[0] for y, p in pairs]
        hand.assert_same(*grads)


def test_rebuilt_and_reused_states_are_refused():
    cell, _ = delayed_lif()
    x = hand.spikes_in(rate=0.9)
    state = None
    for step in x[:6]:
        before = state
        _, state = cell(step, state)
    base = type(state).__mro__[1]
    with pytest.raises(dk.HistoryError, match="without its delay history"):
        cell(x[6], base(*state))
    with pytest.raises(dk.HistoryError, match="stepped already"):
        cell(x[6], before)


def test_autapses_stay_forbidden_in_a_wrapped_copy():
    bare = norse.LIFRecurrentCell(PRE, HIDDEN)
    x = hand.spikes_in(rate=0.8).float()
    rules = {"recurrent": dk.FreeDelay("axonal", init=2.5)}
    net = dk.wrap(bare, rules, example=(x[0],))
    out, state = [], None
    for step in 9 * x:
        z, state = net(step, state)
        out.append(state.v)
    torch.stack(out).sum().backward()
    grad = net._parameters["recurrent_weights"].grad
    assert bool(grad.any()) and not bool(grad.diagonal().any())
    assert type(bare) is norse.LIFRecurrentCell and bare.recurrent_weights.grad is None


class Readout(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.cell = nn.Linear(PRE, HIDDEN, bias=False), norse.LIFCell()
        self.out = norse.LILinearCell(HIDDEN, POST)

    def forward(self, x):
        s1 = s2 = None
        out = []
        for step in x:
            z, s1 = self.cell(self.fc1(step), s1)
            v, s2 = self.out(z, s2)
            out.append(v)
        return torch.stack(out)


def test_li_linear_cell():
    net = Readout().double()
    with torch.no_grad():
        net.fc1.weight.copy_(3 * torch.randn(HIDDEN, PRE, generator=torch.Generator().manual_seed(0)))
        net.out.input_weights.normal_(generator=torch.Generator().manual_seed(1))
    twin, li = late_linear(net.out.input_weights, "axonal"), norse.LICell()
    fc1 = net.fc1.weight.detach().clone()
    dk.wrap_(net, {"out.input": dk.FreeDelay("axonal", init=twin.delay.tolist())}, example=hand.spikes_in())
    for data in (hand.spikes_in(rate=0.5), hand.spikes_in(rate=0.5), hand.spikes_in(9, 2, rate=0.5)):
        twin.clear()
        s1 = s2 = None
        want, spikes = [], []
        for step in data:
            z, s1 = net.cell(step @ fc1.T, s1)
            v, s2 = li(twin(z), s2)
            want.append(v)
            spikes.append(z)
        assert 0.02 <= float(torch.stack(spikes).detach().mean()) <= 0.3
        got, want = net(data), torch.stack(want)
        hand.assert_same(got, want)
        mine = [net.out._parameters["input_weights"], net.out.dk["input"].delay.delay]
        grads = [
            torch.autograd.grad(y.square().sum(), p) for y, p in ((got, mine), (want, [twin.module.weight, twin.delay]))
        ]
        hand.assert_same(*grads)


class Looped(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.fc1, self.cell = nn.Linear(PRE, HIDDEN, bias=False), getattr(norse, kind)()

    def forward(self, x):
        s, out = None, []
        for step in x:
            z, s = self.cell(self.fc1(step), s)
            out.append(z)
        return torch.stack(out)


def looped_by_hand(net, late, x):
    late.clear()
    s, z, out = None, torch.zeros(x.shape[1], HIDDEN).double(), []
    for step in x:
        z, s = net.cell(net.fc1(step) + late(z), s)
        out.append(z)
    return torch.stack(out)


def lively_loop(kind):
    for seed in range(100):
        torch.manual_seed(seed)
        twin, late = Looped(kind).double(), late_linear(torch.randn(HIDDEN, HIDDEN).double(), "axonal")
        with torch.no_grad():
            twin.fc1.weight.copy_(10.0 ** torch.rand(()) * (torch.randn(HIDDEN, PRE) + 0.2))
            if 0.02 <= float(looped_by_hand(twin, late, hand.spikes_in(rate=0.5)).mean()) <= 0.3:
                return twin, late
    raise AssertionError(f"{kind} never fires at 2-30 %")


@pytest.mark.parametrize("kind", ["LIFCell", "LIFBoxCell", "LSNNCell", "LIFAdExCell", "LIFExCell", "IAFCell"])
def test_new_recurrent_connection(kind):
    twin, late = lively_loop(kind)
    net = Looped(kind).double()
    net.load_state_dict(twin.state_dict())
    rule = dk.Recurrent(dk.FreeDelay("axonal", init=late.delay.tolist()), weight=late.module.weight.detach())
    dk.wrap_(net, {"cell": rule}, example=hand.spikes_in())
    for data in (hand.spikes_in(rate=0.5), hand.spikes_in(rate=0.5), hand.spikes_in(9, 2, rate=0.5)):
        got, want = net(data), looped_by_hand(twin, late, data)
        hand.assert_same(got, want)
        loop, scale = net.cell.dk["loop"], torch.arange(1.0, HIDDEN + 1)
        mine = [net.fc1.weight, loop.connection.weight, loop.synapse.delay.delay]
        theirs = [twin.fc1.weight, late.module.weight, late.delay]
        hand.assert_same(*[torch.autograd.grad((y * scale).sum(), p) for y, p in ((got, mine), (want, theirs))])
