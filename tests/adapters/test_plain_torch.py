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
            hand.assert_same(run(net, x), run(twin, x))


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
        hand.assert_same(*outs)


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
    hand.assert_same(named(twin, x), want)
    optimizer = torch.optim.SGD(dk.param_groups(twin, lr=0.1))
    dk.attach(optimizer, twin)
    named(twin, x).square().sum().backward()
    optimizer.step()
    assert not torch.equal(named(twin, x), want)
    hand.assert_same(named(net, x), want)
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
