"""Every neuron class of snnTorch with delayed inputs and delayed recurrence, against delays written out by hand."""

from __future__ import annotations

import hand
import pytest
import torch
from hand import HIDDEN, POST, PRE, spike
from torch import nn

import delaykit as dk

snn = pytest.importorskip("snntorch", reason="wraps snntorch models")

COUNT = {"Leaky": 1, "Lapicque": 1, "Synaptic": 2, "Alpha": 3, "RLeaky": 2, "RSynaptic": 3, "SLSTM": 2}
NUMBERS = {
    "Leaky": {"beta": 0.8},
    "Lapicque": {"beta": 0.8, "time_step": 0.5},
    "Synaptic": {"alpha": 0.4, "beta": 0.7},
    "Alpha": {"alpha": 0.6, "beta": 0.5},
    "RLeaky": {"beta": 0.8, "linear_features": HIDDEN},
    "RSynaptic": {"alpha": 0.4, "beta": 0.7, "linear_features": HIDDEN},
}


def neuron(kind, **more):
    numbers = {**NUMBERS[kind], "spike_grad": spike, **more}
    if numbers.get("beta") is None:
        numbers.pop("beta")
    if not numbers.get("all_to_all", True) or numbers.get("conv2d_channels"):
        numbers.pop("linear_features")
    return getattr(snn, kind)(**numbers)


class Net(nn.Module):
    """fc1 -> neuron -> fc2; ``how`` the states live: kept by the neuron, made by hand, or from reset_mem."""

    def __init__(self, kind, how="zeros", **more):
        super().__init__()
        self.how, self.count = how, COUNT[kind]
        self.fc1 = nn.Linear(PRE, HIDDEN)
        self.lif = neuron(kind, init_hidden=how == "hidden", **more)
        self.fc2 = nn.Linear(HIDDEN, POST)

    def start(self, x):
        if self.how == "zeros":
            return [torch.zeros(x.shape[1], HIDDEN, dtype=x.dtype)] * self.count
        states = self.lif.reset_mem()
        if self.how == "hidden":
            return []
        return list(states) if isinstance(states, tuple) else [states]

    def forward(self, x):
        states, out = self.start(x), []
        for step in x:
            result = self.lif(self.fc1(step), *states)
            if self.how == "hidden":
                spk = result
            else:
                spk, states = result[0], list(result)[-self.count :]
            out.append(self.fc2(spk))
        return torch.stack(out)


class OneStep(Net):
    """The loop is outside; the neuron keeps its state."""

    def __init__(self, kind, **more):
        super().__init__(kind, "hidden", **more)

    def forward(self, step):
        return self.fc2(self.lif(self.fc1(step)))


def outside(net, x):
    for module in net.modules():
        if hasattr(module, "reset_mem"):
            module.reset_mem()
    return torch.stack([net(step) for step in x])


def call(net, x):
    return net(x)


IN, REC = {"fc1": "axonal", "fc2": "axonal"}, {"lif.recurrent": "axonal"}


@pytest.mark.parametrize("which", hand.DELAYS)
@pytest.mark.parametrize("how", ["zeros", "reset_mem", "hidden"])
@pytest.mark.parametrize("kind", ["Leaky", "Lapicque", "Synaptic", "Alpha"])
def test_delayed_inputs(kind, how, which):
    hand.check(lambda: Net(kind, how), call, IN, which, rate=0.5)


@pytest.mark.parametrize("kind", ["Leaky", "Lapicque", "Synaptic", "Alpha"])
def test_delayed_inputs_with_the_loop_outside(kind):
    hand.check(lambda: OneStep(kind), outside, IN, "mixed", rate=0.5)


@pytest.mark.parametrize("how", ["zeros", "reset_mem", "hidden", "outside"])
@pytest.mark.parametrize("reset", ["subtract", "zero", "none"])
@pytest.mark.parametrize("kind", ["RLeaky", "RSynaptic"])
def test_delayed_recurrence(kind, reset, how):
    repeats = {"lif_recurrent": {"repeats": 2 if reset == "zero" else 1}}  # the zero reset calls it twice a step
    build = OneStep if how == "outside" else lambda *a, **k: Net(*a, how, **k)
    run = outside if how == "outside" else call
    for which in hand.DELAYS:
        hand.check(lambda: build(kind, reset_mechanism=reset), run, {**IN, **REC}, which, **repeats)


@pytest.mark.parametrize("kind", ["layer", "dendritic", "synaptic"])
@pytest.mark.parametrize("reset", ["subtract", "zero"])
def test_delayed_recurrence_of_every_granularity(kind, reset):
    repeats = {"lif_recurrent": {"repeats": 2 if reset == "zero" else 1}}
    for which in hand.DELAYS:
        sites = {"lif.recurrent": kind}
        hand.check(lambda: Net("RLeaky", "hidden", reset_mechanism=reset), call, sites, which, **repeats)


@pytest.mark.parametrize("reset", ["subtract", "zero"])
@pytest.mark.parametrize("v", [0.6, "vector"])
@pytest.mark.parametrize("kind", ["RLeaky", "RSynaptic"])
def test_one_to_one_recurrence(kind, v, reset):
    value = torch.linspace(-0.5, 0.9, HIDDEN) if v == "vector" else v
    for which in hand.DELAYS:
        hand.check(
            lambda: Net(kind, "reset_mem", all_to_all=False, V=value, reset_mechanism=reset),
            call,
            {"fc1": "axonal", "lif.recurrent": "axonal"},
            which,
            lif_recurrent={"size": HIDDEN, "repeats": 2 if reset == "zero" else 1},
        )


class ConvRecurrence(nn.Module):
    def __init__(self, kind, reset):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(1, 3, 3, padding=1), nn.Linear(3 * 16, POST)
        self.lif = neuron(kind, conv2d_channels=3, kernel_size=3, init_hidden=True, reset_mechanism=reset)

    def forward(self, x):
        self.lif.reset_mem()
        return torch.stack([self.fc(self.lif(self.conv(step)).flatten(1)) for step in x])


@pytest.mark.parametrize("kind", ["RLeaky", "RSynaptic"])
def test_convolutional_recurrence(kind):
    for granularity, reset in (("axonal", "subtract"), ("dendritic", "zero")):
        repeats = {"lif_recurrent": {"repeats": 2 if reset == "zero" else 1}}
        sites = {"conv": "axonal", "lif.recurrent": granularity}
        hand.check(lambda r=reset: ConvRecurrence(kind, r), call, sites, "mixed", shape=(1, 4, 4), rate=0.2, **repeats)


class Lstm(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(PRE, HIDDEN), nn.Linear(HIDDEN, POST)
        self.lstm = snn.SLSTM(HIDDEN, HIDDEN, spike_grad=spike, threshold=0.3)

    def forward(self, x):
        syn = mem = torch.zeros(x.shape[1], HIDDEN, dtype=x.dtype)
        out = []
        for step in x:
            spk, syn, mem = self.lstm(self.fc1(step), syn, mem)
            out.append(self.fc2(spk))
        return torch.stack(out)


class ConvLstm(nn.Module):
    """A convolutional LSTM behind a convolution; states by hand, or kept inside with pooled spikes."""

    def __init__(self, init_hidden):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(1, 2, 3, padding=1), nn.Linear(3 * (4 if init_hidden else 16), POST)
        options = {"spike_grad": spike, "threshold": 0.5 if init_hidden else 0.3, "init_hidden": init_hidden}
        self.lstm = snn.SConv2dLSTM(2, 3, 3, max_pool=2 if init_hidden else 0, reset_mechanism="subtract", **options)

    def forward(self, x):
        hidden = self.lstm.init_hidden
        syn, mem = self.lstm.reset_mem()
        if not hidden:
            syn = mem = torch.zeros(x.shape[1], 3, 4, 4, dtype=x.dtype)
        out = []
        for step in x:
            if hidden:
                spk = self.lstm(self.conv(step))
            else:
                spk, syn, mem = self.lstm(self.conv(step), syn, mem)
            out.append(self.fc(spk.flatten(1)))
        return torch.stack(out)


class Delta(nn.Module):
    def __init__(self, init_hidden):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(PRE, HIDDEN), nn.Linear(HIDDEN, POST)
        self.lif = snn.DeltaLeaky(beta=0.8, spike_grad=spike, init_hidden=init_hidden)

    def forward(self, x):
        self.lif.reset_mem()
        state, out = (None, None), []
        for step in x:
            args = () if self.lif.init_hidden else (state,)
            spk, state = self.lif(self.fc1(step), *args)
            out.append(self.fc2(spk))
        return torch.stack(out)


class Graded(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.lif, self.fc2 = (
            nn.Linear(PRE, HIDDEN),
            neuron("Leaky", init_hidden=True),
            nn.Linear(HIDDEN, POST),
        )
        self.graded = snn.GradedSpikes(HIDDEN, 1.5)

    def forward(self, x):
        self.lif.reset_mem()
        return torch.stack([self.fc2(self.graded(self.lif(self.fc1(step)).T).T) for step in x])


class Sequence(nn.Module):
    """Neurons that take the whole sequence, time first."""

    def __init__(self, kind):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(PRE, HIDDEN), nn.Linear(HIDDEN, POST)
        if kind == "LeakyParallel":
            self.lif = snn.LeakyParallel(HIDDEN, HIDDEN, spike_grad=spike)
        elif kind == "StateLeaky":
            self.lif = snn.StateLeaky(beta=0.8, channels=HIDDEN, spike_grad=spike)
        elif kind == "LinearLeaky":
            self.lif = snn.LinearLeaky(beta=0.8, in_features=HIDDEN, out_features=HIDDEN, spike_grad=spike)
        else:
            self.lif = snn.AssociativeLeaky.from_num_spiking_neurons(HIDDEN, 9)
            self.fc2 = nn.Linear(9, POST)

    def forward(self, x):
        spikes = self.lif(self.fc1(x))
        return self.fc2(spikes[0] if isinstance(spikes, tuple) else spikes)


@pytest.mark.parametrize("which", hand.DELAYS)
def test_slstm_takes_delayed_inputs(which):
    hand.check(Lstm, call, IN, which)


@pytest.mark.parametrize("which", hand.DELAYS)
@pytest.mark.parametrize("init_hidden", [True, False])
def test_convolutional_lstm_takes_delayed_inputs(init_hidden, which):
    sites = {"conv": "axonal", "fc": "axonal"}
    hand.check(lambda: ConvLstm(init_hidden), call, sites, which, shape=(1, 4, 4), scale=1.0 if init_hidden else 3.0)


@pytest.mark.parametrize("which", hand.DELAYS)
@pytest.mark.parametrize("init_hidden", [True, False])
def test_delta_leaky(init_hidden, which):
    hand.check(lambda: Delta(init_hidden), call, IN, which)


def test_graded_spikes_in_between():
    hand.check(Graded, call, IN, "mixed")


def test_readout_of_a_sum_over_time_is_refused_also_when_batch_equals_steps():
    class Summed(Sequence):
        def forward(self, x):
            return self.fc2(self.lif(self.fc1(x))[0].sum(0))

    plan = dk.plan(Summed("StateLeaky"), {"fc2": dk.FreeDelay()}, example=hand.spikes_in(6, 6).float())
    assert len(plan.issues) == 1, plan


@pytest.mark.parametrize("granularity", ["axonal", "dendritic", "synaptic"])
@pytest.mark.parametrize("kind", ["LeakyParallel", "StateLeaky", "LinearLeaky"])
def test_sequence_neurons(kind, granularity):
    sites = {"fc1": granularity, "fc2": granularity}
    for which in hand.DELAYS:
        hand.check(lambda: Sequence(kind), call, sites, which, rate=0.5, fc1={"time_dim": 0}, fc2={"time_dim": 0})


REFUSED = {
    "slstm": (Lstm, "lstm.lstm_cell", "gates"),
    "sconv2dlstm": (lambda: ConvLstm(True), "lstm.conv", "gates"),
    "leaky-parallel": (lambda: Sequence("LeakyParallel"), "lif.rnn", "nn.RNN"),
    "linear-leaky": (lambda: Sequence("LinearLeaky"), "lif.linear", "StateLeaky"),
}


@pytest.mark.parametrize("model", REFUSED)
def test_inner_connections_are_refused_with_their_reason(model):
    build, site, reason = REFUSED[model]
    net = build()
    shape = (1, 4, 4) if isinstance(net, ConvLstm) else (PRE,)
    plan = dk.plan(net, {site: dk.FreeDelay("axonal")}, example=hand.spikes_in(shape=shape).float())
    assert len(plan.issues) == 1 and reason in str(plan.issues[0]) and site in str(plan.issues[0]), plan


def test_associative_leaky_refuses_its_projections_and_takes_a_delayed_input():
    net = Sequence("AssociativeLeaky")
    x = hand.spikes_in().float()
    inner = [name for name, m in net.lif.named_modules() if isinstance(m, nn.Linear)]
    assert inner
    plan = dk.plan(net, {f"lif.{inner[0]}": dk.FreeDelay("axonal")}, example=x)
    assert len(plan.issues) == 1 and "matrix state space" in str(plan.issues[0])
    bare = net(hand.HandDelayed(nn.Identity(), torch.tensor(2.0), "layer", time_dim=0)(x)).detach()
    dk.wrap_(net, {"fc1": dk.FreeDelay("axonal", init=2)}, example=x)
    torch.testing.assert_close(net(x), bare)


class HandLooped(nn.Module):
    """A neuron whose own last output comes back as input, late."""

    def __init__(self, inner, late):
        super().__init__()
        self.inner, self.late = inner, late

    def clear(self):
        self.late.clear()
        self.last = None

    def reset_mem(self):
        return self.inner.reset_mem()

    def forward(self, x, *states):
        last = torch.zeros_like(x) if self.last is None else self.last
        out = self.inner(x + self.late(last), *states)
        self.last = out if isinstance(out, torch.Tensor) else out[0]
        return out


@pytest.mark.parametrize("how", ["zeros", "reset_mem", "hidden", "outside"])
@pytest.mark.parametrize("kind", ["Leaky", "Synaptic", "Lapicque", "Alpha"])
def test_new_recurrent_connection(kind, how):
    build = (lambda: OneStep(kind)) if how == "outside" else (lambda: Net(kind, how))
    run = outside if how == "outside" else call
    net, twin, x = build().double(), build().double(), hand.spikes_in(rate=0.5)
    connection = nn.Linear(HIDDEN, HIDDEN).double()
    late = hand.HandDelayed(connection, hand.values("mixed", connection, "axonal"))
    twin.lif = HandLooped(twin.lif, late)
    hand.make_lively_(twin, run, x, {"lif": twin.lif})
    hand.excite_like_(net, _bare(twin), {})
    weight = connection.weight.detach()
    rule = dk.Recurrent(dk.FreeDelay("axonal", init=late.delay.tolist()), weight=weight, bias=True)
    dk.wrap_(net, {"lif": rule}, example=lambda: run(net, x))
    with torch.no_grad():
        net.lif.dk.connection.bias.copy_(connection.bias)
    for data in (x, x, hand.spikes_in(11, 2, seed=4, rate=0.5)):
        twin.lif.clear()
        want, got = run(twin, data), run(net, data)
        hand.assert_same(got, want)
        cotangent = torch.randn(want.shape, generator=torch.Generator().manual_seed(1)).double()
        loop = net.lif.dk
        mine = [loop.connection.weight, loop.connection.bias, loop.synapse.delay.delay, net.fc1.weight]
        theirs = [connection.weight, connection.bias, late.delay, twin.fc1.weight]
        gradients = [torch.autograd.grad((y * cotangent).sum(), p) for y, p in ((got, mine), (want, theirs))]
        assert bool(gradients[1][2].any())
        hand.assert_same(*gradients)


def _bare(twin):
    out = nn.Module()
    out.fc1, out.lif, out.fc2 = twin.fc1, twin.lif.inner, twin.fc2
    return out


@pytest.mark.parametrize("weight", ["orthogonal", "zeros"])
def test_new_recurrent_connection_starts_as_asked(weight):
    net = Net("Leaky", "hidden").double()
    x = hand.spikes_in()
    bare = net(x)
    dk.wrap_(net, {"lif": dk.Recurrent(dk.FreeDelay("axonal"), weight=weight)}, example=x)
    own = net.lif.dk.connection.weight
    expected = torch.eye(HIDDEN).double() if weight == "orthogonal" else torch.zeros(HIDDEN, HIDDEN).double()
    torch.testing.assert_close(own @ own.T, expected, rtol=1e-5, atol=1e-5)
    if weight == "zeros":
        torch.testing.assert_close(net(x), bare, rtol=0, atol=0)
    dk.unwrap_(net)
    torch.testing.assert_close(net(x), bare, rtol=0, atol=0)
    assert not [k for k in net.state_dict() if "dk" in k]


@pytest.mark.parametrize("kind", ["RLeaky", "RSynaptic"])
def test_second_recurrent_connection_is_refused(kind):
    plan = dk.plan(Net(kind, "zeros"), {"lif": dk.Recurrent(dk.FreeDelay())}, example=hand.spikes_in().float())
    assert "has a recurrent connection already" in str(plan.issues[0]) and "lif.recurrent" in str(plan.issues[0])


@pytest.mark.parametrize("build", [Lstm, lambda: Delta(True)], ids=["SLSTM", "DeltaLeaky"])
def test_recurrent_connection_is_refused_where_it_makes_no_sense(build):
    net = build()
    name = "lstm" if hasattr(net, "lstm") else "lif"
    plan = dk.plan(net, {name: dk.Recurrent(dk.FreeDelay())}, example=hand.spikes_in().float())
    assert len(plan.issues) == 1 and isinstance(plan.issues[0], dk.ConfigError)
