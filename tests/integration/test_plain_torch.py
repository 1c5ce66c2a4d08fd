"""Plain PyTorch models with neurons of their own, foreign delays beside ours, copies, and odd ways of calling."""

from __future__ import annotations

import copy
import pickle

import hand
import pytest
import torch
from hand import HIDDEN, POST, PRE, spike
from torch import nn

import delaykit as dk

snn = pytest.importorskip("snntorch", reason="wraps snntorch models")
from snntorch import utils  # noqa: E402


class MyNeuron(nn.Module):
    """A stranger's neuron: a leaky membrane, the state handed over."""

    spiking = True

    def __init__(self, beta=0.8):
        super().__init__()
        self.beta = nn.Parameter(torch.tensor(beta))

    def forward(self, current, v):
        v = self.beta * v + current
        s = spike(v - 1.0)
        return s, v - s


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleDict({"first": nn.Linear(PRE, HIDDEN), "second": nn.Linear(HIDDEN, POST, bias=False)})
        self.neuron, self.out = MyNeuron(), MyNeuron(0.9)

    def step(self, x, v1, v2):
        s1, v1 = self.neuron(self.layers["first"](x), v1)
        s2, v2 = self.out(self.layers["second"](s1), v2)
        return s2, v1, v2

    def forward(self, x, *, scale=1.0):
        v1 = v2 = 0.0
        out = []
        for step in x:
            s2, v1, v2 = self.step(step, v1, v2)
            out.append(scale * (s2 + v2))
        return {"membranes": torch.stack(out), "steps": len(out)}


class Stepped(Net):
    def forward(self, x, v1, v2):
        return self.step(x, v1, v2)


def named(net, x):
    return net(x, scale=2.0)["membranes"]


def step_by_step(net, x):
    v1 = v2 = 0.0
    out = []
    for step in x:
        s, v1, v2 = net(step, v1, v2)
        out.append(s + v2)
    return torch.stack(out)


SITES = {"layers.first": "axonal", "layers.second": "synaptic"}


@pytest.mark.parametrize("which", hand.DELAYS)
def test_own_neurons_with_the_loop_inside(which):
    hand.check(Net, named, SITES, which)


def test_own_neurons_with_the_loop_outside_ask_for_manual_resets():
    net, x = Stepped().double(), hand.spikes_in()
    plan = dk.plan(net, {"*": dk.FreeDelay()}, example=lambda: step_by_step(net, x))
    assert len(plan.issues) == 2 and all("dk.reset(net)" in str(i) for i in plan.issues)
    hand.check(Stepped, step_by_step, SITES, "mixed", reset="manual", before=dk.reset)


class Conv1d(nn.Module):
    """Space along the last dimension, a transposed convolution behind it."""

    def __init__(self):
        super().__init__()
        self.conv, self.up, self.neuron = nn.Conv1d(2, 3, 3), nn.ConvTranspose1d(3, 3, 2), MyNeuron()

    def forward(self, x):
        v, out = 0.0, []
        for step in x:
            s, v = self.neuron(self.conv(step), v)
            out.append(self.up(s))
        return torch.stack(out)


@pytest.mark.parametrize("kind", ["axonal", "layer"])
def test_convolutions_in_one_dimension(kind):
    hand.check(Conv1d, lambda net, x: net(x), {"conv": kind, "up": "axonal"}, "mixed", shape=(2, 8))


class SynapticDelay(nn.Module):
    """Another library's delay: per channel, whole steps, with buffers and a reset of its own."""

    def __init__(self, channels):
        super().__init__()
        self.register_buffer("delays", torch.arange(channels) % 3)
        self.register_buffer("past", torch.zeros(0), persistent=False)

    def reset(self):
        self.past = torch.zeros(0)

    def forward(self, x):
        if self.past.numel() == 0:
            self.past = x.new_zeros(3, *x.shape)
        self.past = torch.cat([x[None], self.past[:-1]])
        return self.past.gather(0, self.delays.expand_as(x)[None])[0]


class WithForeignDelay(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.delay = nn.Linear(PRE, HIDDEN), SynapticDelay(HIDDEN)
        self.lif, self.fc2 = snn.Leaky(beta=0.8, spike_grad=spike), nn.Linear(HIDDEN, POST)

    def forward(self, x):
        self.delay.reset()
        mem, out = self.lif.reset_mem(), []
        for step in x:
            spk, mem = self.lif(self.delay(self.fc1(step)), mem)
            out.append(self.fc2(spk))
        return torch.stack(out)


def test_a_foreign_delay_layer_goes_on_working():
    net, *_ = hand.check(WithForeignDelay, lambda net, x: net(x), {"fc1": "axonal", "fc2": "axonal"}, "mixed")
    assert type(net.delay) is SynapticDelay


class RecurrentSegments(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(PRE, HIDDEN)
        self.lif1 = snn.RLeaky(beta=0.8, spike_grad=spike, linear_features=HIDDEN)

    def forward(self, x, state):
        out = []
        for step in x:
            state = self.lif1(self.fc1(step), *state)
            out.append(state[0] + state[1])
        return torch.stack(out), state


class Segments(nn.Module):
    """The loop is inside, over a segment; the states come from the caller and go back to him."""

    def __init__(self):
        super().__init__()
        self.fc1, self.lif1 = nn.Linear(PRE, HIDDEN), snn.Leaky(beta=0.8, spike_grad=spike)
        self.fc2 = nn.Linear(HIDDEN, POST)

    def forward(self, x, mem):
        out = []
        for step in x:
            spk, mem = self.lif1(self.fc1(step), mem)
            out.append(self.fc2(spk) + mem[:, :POST])
        return torch.stack(out), mem


def by_segments(net, x):
    mem, out = net.lif1.reset_mem(), []
    for segment in x.split(4):
        y, mem = net(segment, mem)
        out.append(y)
    return torch.cat(out)


def by_segments_from_zeros(net, x):
    mem, out = torch.zeros(x.shape[1], HIDDEN).to(x), []
    for segment in x.split(4):
        y, mem = net(segment, mem)
        out.append(y)
    return torch.cat(out)


@pytest.mark.parametrize("which", hand.DELAYS)
def test_a_sequence_in_several_calls_keeps_its_late_spikes(which):
    hand.check(Segments, by_segments, {"fc1": "axonal", "fc2": "synaptic"}, which)


def test_a_recurrent_sequence_in_several_calls():
    hand.check(RecurrentSegments, by_segments, {"fc1": "axonal", "lif1.recurrent": "axonal"}, "mixed")


def test_a_sequence_in_several_calls_from_zeros_asks_for_manual_resets():
    net, x = Segments().double(), hand.spikes_in()
    plan = dk.plan(net, {"fc*": dk.FreeDelay()}, example=lambda: by_segments_from_zeros(net, x))
    assert len(plan.issues) == 2 and all("dk.reset(net)" in str(i) for i in plan.issues), plan
    sites = {"fc1": "axonal", "fc2": "axonal"}
    hand.check(Segments, by_segments_from_zeros, sites, "mixed", reset="manual", before=dk.reset)


def two_segments(net, x, **options):
    """Feed the second half with the state that the first half left."""
    start = torch.zeros(x.shape[1], HIDDEN).to(x)
    state = (start, start) if isinstance(net, RecurrentSegments) else start
    half = len(x) // 2
    first, state = net(x[:half], state)
    return torch.cat([first, net(x[half:], change_state(state, **options))[0]])


def change_state(state, change=lambda tensor: tensor):
    return tuple(change(s) for s in state) if isinstance(state, tuple) else change(state)


def one_call(net, x):
    mem = torch.zeros(x.shape[1], HIDDEN).to(x)
    return net(x, (mem, mem) if isinstance(net, RecurrentSegments) else mem)[0]


@pytest.mark.parametrize("how", [lambda m: m, torch.Tensor.detach], ids=["as it is", "detached"])
@pytest.mark.parametrize("site", ["fc1", "fc2", "lif1.recurrent"])
def test_an_unplanned_second_segment_is_refused(site, how):
    net, x = (RecurrentSegments if site == "lif1.recurrent" else Segments)().double(), hand.spikes_in()
    dk.wrap_(net, {site: dk.FreeDelay("axonal", init=2.5)}, example=lambda: one_call(net, x))
    one_call(net, x)
    for model in (net, copy.deepcopy(_reset(net))):
        with pytest.raises(dk.HistoryError, match=f"(?s){site}.*'lif1'.*two calls.*reset='manual'"):
            two_segments(model, x, change=how)
        want = one_call(model, x)  # and a new sequence begins as if nothing had happened
        hand.same(one_call(model, x), want)


def _reset(net):
    net.lif1.reset_mem()
    return net


def test_segments_that_lose_nothing_or_were_asked_for_go_on(tmp_path):
    x, started = hand.spikes_in(), torch.zeros_like
    halves = x.split(len(x) // 2)

    def wrapped(component):
        net = Segments().double()
        return dk.wrap_(net, {"fc*": component}, example=lambda: one_call(net, x))

    net = wrapped(dk.FreeDelay("axonal", init=0))
    assert torch.equal(two_segments(net, x), one_call(net, x))
    net = wrapped(dk.FreeDelay("axonal", init=2))
    assert torch.equal(two_segments(net, x, change=started), torch.cat([one_call(net, half) for half in halves]))
    net = wrapped(dk.At(dk.FreeDelay("axonal", init=2), reset="root"))
    cut = two_segments(net, x)  # the membrane goes on, spikes under way are lost, as asked for
    assert torch.equal(cut[: len(halves[0])], one_call(net, halves[0])) and not torch.equal(cut, one_call(net, x))
    dk.save(net, tmp_path / "late")
    loaded = Segments().double()
    loaded.load_state_dict({k: v for k, v in net.state_dict().items() if ".dk." not in k})
    assert torch.equal(two_segments(dk.load(loaded, tmp_path / "late"), x), cut)
    net = wrapped(dk.FreeDelay(init=2))
    with dk.disabled(net):
        assert torch.equal(two_segments(net, x), one_call(net, x))
    mem = net.lif1.reset_mem()
    net(x, mem)
    again = net(x, net.lif1.mem.detach().zero_())[0]
    assert torch.equal(again, one_call(net, x))


def outer_net():
    lif = {"beta": 0.8, "spike_grad": spike, "init_hidden": True}
    return nn.Sequential(nn.Linear(PRE, HIDDEN), snn.Leaky(**lif), nn.Linear(HIDDEN, POST), snn.Leaky(**lif))


def test_without_a_reset_the_history_goes_on_as_the_membrane_does():
    net, twin, x = outer_net().double(), outer_net().double(), hand.spikes_in(8)
    sites = {"0": "axonal", "2": "axonal"}
    made = hand.hand_made(twin, sites, "mixed")

    def run(model, data):
        return torch.stack([model(step) for step in data])

    def fresh(model, data):
        utils.reset(model)
        return run(model, data)

    hand.make_lively_(twin, fresh, x, made)
    hand.excite_like_(net, twin, made)
    dk.wrap_(net, hand.rules(sites), example=lambda: fresh(net, x))
    hand.set_delays_(net, made)
    utils.reset(net)
    utils.reset(twin)
    hand.clear(made)
    with torch.no_grad():
        for _ in range(3):
            hand.same(run(net, x), run(twin, x))


def test_an_example_of_one_step_is_enough_for_a_loop_outside():
    net, twin, x = outer_net().double(), outer_net().double(), hand.spikes_in()
    made = hand.hand_made(twin, {"0": "axonal"}, "2")
    twin.load_state_dict(net.state_dict(), strict=False)
    hand.excite_like_(net, twin, made)
    dk.wrap_(net, {"0": dk.FreeDelay("axonal", init=2)}, example=x[0])
    for data in (x, x, x[:, :2]):
        hand.clear(made)
        outs = []
        for model in (net, twin):
            utils.reset(model)
            outs.append(torch.stack([model(step) for step in data]))
        hand.same(*outs)


def test_as_many_samples_as_steps_must_be_told_apart():
    class Ambiguous(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.lif = nn.Linear(PRE, HIDDEN), snn.Leaky(beta=0.8)

        def forward(self, x):
            mem, out = self.lif.reset_mem(), []
            for current in self.fc(x):
                spk, mem = self.lif(current, mem)
                out.append(spk)
            return torch.stack(out)

    net = Ambiguous()
    plan = dk.plan(net, {"fc": dk.FreeDelay()}, example=torch.rand(6, 6, PRE))
    assert len(plan.issues) == 1 and "time_dim" in str(plan.issues[0])
    plan = dk.plan(net, {"fc": dk.At(dk.FreeDelay(), time_dim=0)}, example=torch.rand(6, 6, PRE))
    assert not plan.issues and plan.sites[0].timing.time_dim == 0


class StackedReadout(nn.Module):
    """The loop collects spikes; the readout sees them all at once."""

    def __init__(self):
        super().__init__()
        self.fc1, self.lif, self.head = (
            nn.Linear(PRE, HIDDEN),
            snn.Leaky(beta=0.8, spike_grad=spike),
            nn.Linear(HIDDEN, 2),
        )

    def forward(self, x):
        mem, spikes = self.lif.reset_mem(), []
        for step in x:
            spk, mem = self.lif(self.fc1(step), mem)
            spikes.append(spk)
        return self.head(torch.stack(spikes))


def test_a_readout_of_stacked_spikes_takes_time_dim():
    assert dk.plan(StackedReadout(), {"head": dk.FreeDelay()}, example=hand.spikes_in().float()).issues
    net, twin, x = StackedReadout().double(), StackedReadout().double(), hand.spikes_in()
    made = hand.hand_made(twin, {"head": "axonal"}, "mixed", head={"time_dim": 0})
    hand.make_lively_(twin, lambda n, d: n(d), x, made)
    hand.excite_like_(net, twin, made)
    dk.wrap_(net, {"head": dk.At(dk.FreeDelay("axonal"), time_dim=0)}, example=x)
    hand.set_delays_(net, made)
    for data in (x, x, x[:9, :2]):
        hand.compare(net, twin, made, lambda n, d: n(d), data)


@pytest.mark.parametrize("how", ["deepcopy", "pickle"])
def test_copies_are_independent_and_train(how):
    net, x = Net().double(), hand.spikes_in()
    hand.make_lively_(net, named, x, {})
    dk.wrap_(net, hand.rules(SITES), example=x)
    want = named(net, x)
    twin = copy.deepcopy(net) if how == "deepcopy" else pickle.loads(pickle.dumps(net))
    hand.same(named(twin, x), want)
    optimizer = torch.optim.SGD(dk.param_groups(twin, lr=0.1))
    dk.attach(optimizer, twin)
    named(twin, x).square().sum().backward()
    optimizer.step()
    assert not torch.equal(named(twin, x), want)
    hand.same(named(net, x), want)
    assert all(p.grad is None for p in net.parameters())
    dk.unwrap_(twin)
    assert type(twin.layers["first"]) is nn.Linear and isinstance(net.layers["first"], nn.Linear)
    assert "dk" in net.layers["first"]._modules


def test_frozen_weights_leave_only_the_delays_to_learn():
    net, x = Net().double(), hand.spikes_in()
    hand.make_lively_(net, named, x, {})
    net.requires_grad_(False)
    dk.wrap_(net, hand.rules(SITES), example=x)
    named(net, x).square().sum().backward()
    assert sorted(n for n, p in net.named_parameters() if p.grad is not None) == [
        "layers.first.dk.delay.delay",
        "layers.second.dk.delay.delay",
    ]


def test_float32_with_the_librarys_own_surrogate():
    class Usual(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1, self.lif1 = nn.Linear(PRE, HIDDEN), snn.Leaky(beta=0.8, spike_grad=snn.surrogate.fast_sigmoid())
            self.fc2 = nn.Linear(HIDDEN, POST)

        def forward(self, x):
            mem, out = self.lif1.reset_mem(), []
            for step in x:
                spk, mem = self.lif1(self.fc1(step), mem)
                out.append(self.fc2(spk))
            return torch.stack(out)

    net, twin, x = Usual(), Usual(), hand.spikes_in().float()
    made = {"fc1": hand.replace_(twin, "fc1", delay=torch.tensor([2.0, 2.5, 0.0, 1.25, 3.5]))}
    hand.make_lively_(twin, lambda n, d: n(d), x, made)
    hand.excite_like_(net, twin, made)
    dk.wrap_(net, {"fc1": dk.FreeDelay("axonal", init=made["fc1"].delay.tolist())}, example=x)
    for data in (x, x, x[:, :2]):
        hand.compare(net, twin, made, lambda n, d: n(d), data, tolerance=1e-4)
