"""Exact gradients in wrapped models: the library's values, the gradients of continuous time, and clear refusals."""

from __future__ import annotations

import copy
import math

import continuous
import numpy as np
import pytest
import torch
from continuous import TAU_MEM, TAU_SYN, cosine, grid
from torch import nn

import delaykit as dk
from delaykit.adapters.exact import timing_of
from delaykit.errors import HistoryError, WrapError
from delaykit.functional.events import Timing, rescale_gradient
from delaykit.testing.reference_net import surrogate_spike

snn = pytest.importorskip("snntorch")
norse = pytest.importorskip("norse.torch")

UNTIL, COEFFICIENTS = 12.0, np.array([1.0, -0.7, 0.4])
CLOSE = {0.1: 0.97, 0.02: 0.999}


def drawn(seed, neurons=3, sources=4):
    """A recurrent network in continuous time and its input spikes."""
    random = np.random.default_rng(seed)
    feed, feed_delay = random.uniform(0.1, 0.45, (neurons, sources)), random.uniform(0.5, 4, (neurons, sources))
    back, back_delay = random.uniform(-0.15, 0.3, (neurons, neurons)), random.uniform(0.5, 4, (neurons, neurons))
    np.fill_diagonal(back, 0)
    inputs = [(m, float(at)) for m in range(sources) for at in np.sort(random.uniform(0, 15, 3))]
    return np.concatenate([feed, back], 1), np.concatenate([feed_delay, back_delay], 1), inputs


def scale(dt):
    """What snnTorch's current is for a weight of 1 in continuous time: K of a step of dt ms."""
    decays = (torch.tensor(math.exp(-dt / tau), dtype=torch.float64) for tau in (TAU_SYN, TAU_MEM))
    return dt * float(Timing(*decays).response())


def exact(delay_ms, dt, estimator="exact"):
    return dk.FreeDelay("synaptic", max_delay=20 / dt, init=torch.as_tensor(delay_ms / dt), estimator=estimator)


class SynapticNet(nn.Module):
    def __init__(self, weight, dt, reset="subtract", how="own"):
        super().__init__()
        neurons, sources = weight.shape[0], weight.shape[1] - weight.shape[0]
        options = {"alpha": math.exp(-dt / TAU_SYN), "beta": math.exp(-dt / TAU_MEM), "spike_grad": surrogate_spike}
        options["reset_mechanism"] = reset
        self.how, self.sites = how, {"own": "lif.recurrent", "given": "lif.recurrent", "outside": "back"}[how]
        self.fc = nn.Linear(sources, neurons, bias=False)
        self.lif = snn.RSynaptic(linear_features=neurons, **options) if how == "own" else snn.Synaptic(**options)
        self.back = nn.Linear(neurons, neurons, bias=False) if how == "outside" else None
        self.recurrent = torch.tensor(weight[:, sources:]) * scale(dt)
        self.double()
        with torch.no_grad():
            self.fc.weight.copy_(torch.tensor(weight[:, :sources]) * scale(dt))
            if how != "given":
                self.matrix().weight.copy_(self.recurrent)
            if how == "own":
                self.lif.recurrent.bias.zero_()

    def matrix(self):
        if self.how == "given":
            return self.lif.dk.connection
        return self.back if self.how == "outside" else self.lif.recurrent

    def wrap_(self, delay, dt, estimator="exact"):
        sources = self.fc.in_features
        back = exact(delay[:, sources:], dt, estimator)
        rules = {"fc": exact(delay[:, :sources], dt, estimator)}
        rules |= {"lif": dk.Recurrent(back, weight=self.recurrent)} if self.how == "given" else {self.sites: back}
        return dk.wrap_(self, rules, example=torch.zeros(2, 1, sources, dtype=torch.float64))

    def parameters_of_time(self):
        delays = {"given": lambda: self.lif.dk.synapse}.get(self.how, lambda: self.matrix().dk)().delay.delay
        return [self.fc.weight, self.matrix().weight, self.fc.dk.delay.delay, delays]

    def forward(self, x):
        state, spikes, count = self.lif.reset_mem(), None, 0.0
        for step in x:
            drive = self.fc(step)
            if self.how == "outside":
                drive = drive + self.back(torch.zeros_like(drive) if spikes is None else spikes)
            spikes, *rest = self.lif(drive, *state)
            state = (spikes, *rest) if self.how == "own" else tuple(rest)
            count = count + spikes.detach().sum()
        return state[-1], count


class NorseNet(nn.Module):
    def __init__(self, weight, dt):
        super().__init__()
        neurons, sources = weight.shape[0], weight.shape[1] - weight.shape[0]
        numbers = {"tau_syn_inv": 1e3 / TAU_SYN, "tau_mem_inv": 1e3 / TAU_MEM, "v_th": 1.0, "v_leak": 0.0}
        p = norse.LIFParameters(**{k: torch.tensor(v, dtype=torch.float64) for k, v in numbers.items()})
        self.cell = norse.LIFRecurrentCell(sources, neurons, p=p, dt=dt * 1e-3).double()
        with torch.no_grad():  # tau_mem v' = -v + i
            self.cell.input_weights.copy_(torch.tensor(weight[:, :sources]) * TAU_MEM)
            self.cell.recurrent_weights.copy_(torch.tensor(weight[:, sources:]) * TAU_MEM)

    def wrap_(self, delay, dt, estimator="exact"):
        sources = self.cell.input_weights.shape[1]
        rules = {"cell.input": exact(delay[:, :sources], dt, estimator)}
        rules["cell.recurrent"] = exact(delay[:, sources:], dt, estimator)
        return dk.wrap_(self, rules, example=torch.zeros(2, 1, sources, dtype=torch.float64))

    def parameters_of_time(self):
        delays = [self.cell.dk[slot].delay.delay for slot in ("input", "recurrent")]
        return [self.cell.input_weights, self.cell.recurrent_weights, *delays]

    def forward(self, x):
        state, count = None, 0.0
        for step in x:
            spikes, state = self.cell(step, state)
            count = count + spikes.detach().sum()
        return state.v, count


def found_slopes(net, x):
    membrane, count = net(x)
    leaves = net.parameters_of_time()
    grads = torch.autograd.grad((membrane[0] * torch.tensor(COEFFICIENTS)).sum(), leaves)
    weight, delay = (torch.cat(pair, 1).numpy() for pair in (grads[:2], grads[2:]))
    return weight, delay, int(count)


def compare(net, weight, delay, inputs, dt, estimator="exact"):
    """Cosines of the gradients of weights and delays with finite differences in continuous time."""
    wanted = continuous.slopes(weight, delay, inputs, UNTIL, COEFFICIENTS)
    spikes, _ = continuous.run(weight, delay, inputs, UNTIL)
    net.wrap_(delay, dt, estimator)
    *found, count = found_slopes(net, grid(inputs, weight.shape[1] - weight.shape[0], UNTIL, dt))
    assert len(spikes) > 4
    used = weight != 0
    return [cosine(one[used], two[used]) for one, two in zip(found, wanted, strict=True)], count == len(spikes)


# --- continuous time


@pytest.mark.parametrize("dt", CLOSE)
@pytest.mark.parametrize("seed", [3, 4, 9, 14])
def test_recurrent_snntorch_agrees_with_finite_differences_of_continuous_time(seed, dt):
    weight, delay, inputs = drawn(seed)
    cosines, same = compare(SynapticNet(weight, dt), weight, delay, inputs, dt)
    assert same and min(cosines) >= CLOSE[dt]


@pytest.mark.parametrize("dt", CLOSE)
@pytest.mark.parametrize("seed", [3, 4, 9, 14])
def test_recurrent_norse_agrees_with_finite_differences_of_continuous_time(seed, dt):
    weight, delay, inputs = drawn(seed)
    cosines, same = compare(NorseNet(weight, dt), weight, delay, inputs, dt)
    assert same and min(cosines) >= CLOSE[dt]


def test_a_reset_to_zero_agrees_too():
    weight, delay, inputs = drawn(3)
    cosines, _ = compare(SynapticNet(weight, 0.02, "zero"), weight, delay, inputs, 0.02)
    assert min(cosines) >= 0.999


@pytest.mark.parametrize("kind", [SynapticNet, NorseNet])
def test_surrogate_gradients_do_not_agree(kind):
    """What the tests above would find if the switch did nothing."""
    weight, delay, inputs = drawn(3)
    cosines, _ = compare(kind(weight, 0.02), weight, delay, inputs, 0.02, "interp")
    assert cosines[1] < 0.9


class TwoLayers(nn.Module):
    """Synaptic behind Synaptic: the first layer's gradient comes by its spikes' times alone."""

    def __init__(self, weight, dt, neurons=2):
        super().__init__()
        options = {"alpha": math.exp(-dt / TAU_SYN), "beta": math.exp(-dt / TAU_MEM), "spike_grad": surrogate_spike}
        sources = weight.shape[1] - weight.shape[0]
        self.fc1, self.fc2 = (nn.Linear(n, m, bias=False) for n, m in ((sources, neurons), (neurons, 3)))
        self.lif1, self.lif2 = snn.Synaptic(**options), snn.Synaptic(**options)
        self.double()
        with torch.no_grad():
            self.fc1.weight.copy_(torch.tensor(weight[:neurons, :sources]) * scale(dt))
            self.fc2.weight.copy_(torch.tensor(weight[neurons:, sources : sources + neurons]) * scale(dt))

    def forward(self, x):
        first, second = self.lif1.reset_mem(), self.lif2.reset_mem()
        for step in x:
            spikes, *first = self.lif1(self.fc1(step), *first)
            _, *second = self.lif2(self.fc2(spikes), *second)
        return second[-1]


@pytest.mark.parametrize("dt", CLOSE)
@pytest.mark.parametrize("seed", [7, 9])
def test_gradients_cross_layers_by_the_times_of_spikes(seed, dt):
    random = np.random.default_rng(seed)
    weight, delay = np.zeros((5, 9)), np.full((5, 9), 1.0)
    weight[:2, :4], weight[2:, 4:6] = random.uniform(0.3, 0.5, (2, 4)), random.uniform(0.3, 0.8, (3, 2))
    delay[:2, :4], delay[2:, 4:6] = random.uniform(0.5, 3, (2, 4)), random.uniform(0.5, 3, (3, 2))
    inputs = [(m, float(at)) for m in range(4) for at in np.sort(random.uniform(0, 8, 3))]
    coefficients = np.array([0.0, 0.0, *COEFFICIENTS])
    wanted = continuous.slopes(weight, delay, inputs, UNTIL, coefficients)
    net = TwoLayers(weight, dt)
    # A spike is seen at the end of its step, and a connection in the same step delivers at its beginning: 1 is 0 ms.
    rules = {"fc1": exact(delay[:2, :4], dt), "fc2": exact(delay[2:, 4:6] + dt, dt)}
    dk.wrap_(net, rules, example=torch.zeros(2, 1, 4, dtype=torch.float64))
    loss = (net(grid(inputs, 4, UNTIL, dt))[0] * torch.tensor(COEFFICIENTS)).sum()
    for k, parameter in enumerate(("weight", "dk.delay.delay")):
        for site, rows, columns in (("fc1", slice(0, 2), slice(0, 4)), ("fc2", slice(2, 5), slice(4, 6))):
            (grad,) = torch.autograd.grad(loss, net.get_parameter(f"{site}.{parameter}"), retain_graph=True)
            assert cosine(grad.numpy(), wanted[k][rows, columns]) >= CLOSE[dt]


@pytest.mark.parametrize("how", ["given", "outside"])
def test_every_way_to_write_a_recurrence_has_the_same_gradient(how):
    weight, delay, inputs = drawn(4)
    found = {}
    for which in ("own", how):
        net = SynapticNet(weight, 0.1, how=which)
        net.wrap_(delay, 0.1)
        found[which] = found_slopes(net, grid(inputs, 4, UNTIL, 0.1))
    for one, two in zip(found["own"], found[how], strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-10, atol=1e-12)
    assert found[how][2] == 11


@pytest.mark.parametrize("granularity", ["layer", "axonal", "dendritic"])
def test_a_shared_delay_has_the_sum_of_its_synapses_gradients(granularity):
    weight, _, inputs = drawn(9)
    shape, dims = {"layer": ((), (0, 1)), "axonal": ((4,), (0,)), "dendritic": ((3,), (1,))}[granularity]
    shared = torch.rand(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 30
    rows = shared.reshape(-1, 1) if granularity == "dendritic" else shared
    found = []
    for name, init in ((granularity, shared), ("synaptic", rows.expand(3, 4).clone())):
        net = SynapticNet(weight, 0.1)
        config = dk.FreeDelay(name, max_delay=100, init=init, estimator="exact")
        rules = {"fc": config, "lif.recurrent": exact(np.full((3, 3), 1.5), 0.1)}
        dk.wrap_(net, rules, example=torch.zeros(2, 1, 4, dtype=torch.float64))
        membrane, _ = net(grid(inputs, 4, UNTIL, 0.1))
        found.append(torch.autograd.grad(membrane.sum(), [net.fc.dk.delay.delay, net.fc.weight]))
    torch.testing.assert_close(found[0][0], found[1][0].sum(dims), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-10, atol=1e-12)


# --- the library's values


def cells():
    p = norse.LIFParameters(v_leak=torch.tensor(0.1), v_reset=torch.tensor(-0.2), tau_mem_inv=torch.tensor(300.0))
    return {
        "Synaptic": lambda: snn.Synaptic(0.7, 0.8),
        "Synaptic zero": lambda: snn.Synaptic(0.7, 0.8, reset_mechanism="zero"),
        "Synaptic learned": lambda: snn.Synaptic(0.7, 0.8, learn_alpha=True, learn_beta=True, learn_threshold=True),
        "Synaptic bypass": lambda: snn.Synaptic(0.7, 0.8, surrogate_disable=True),
        "RSynaptic": lambda: snn.RSynaptic(0.7, 0.8, linear_features=8),
        "RSynaptic zero": lambda: snn.RSynaptic(0.7, 0.8, linear_features=8, reset_mechanism="zero"),
        "RSynaptic one-to-one": lambda: snn.RSynaptic(0.7, 0.8, all_to_all=False, V=0.3),
        "LIFCell": lambda: norse.LIFCell(p=p),
        "LIFRecurrentCell": lambda: norse.LIFRecurrentCell(8, 8, p=p),
    }


class OneNeuron(nn.Module):
    def __init__(self, neuron):
        super().__init__()
        self.fc, self.neuron = nn.Linear(6, 8), neuron
        with torch.no_grad():
            self.fc.weight.mul_(6.0 if hasattr(neuron, "p") else 2.0)

    def forward(self, x):
        steps, state = [], None
        state = self.neuron.reset_mem() if hasattr(self.neuron, "reset_mem") else (None,)
        for step in x:
            spikes, *rest = self.neuron(self.fc(step), *state)
            state = (spikes, *rest) if isinstance(self.neuron, snn.RSynaptic) else tuple(rest)
            membrane = rest[-1].v if hasattr(rest[-1], "v") else rest[-1]
            steps.append(torch.cat([spikes, membrane], -1))
        return torch.stack(steps)


def spikes_in(time=30, batch=4, sources=6, seed=0):
    return (torch.rand(time, batch, sources, generator=torch.Generator().manual_seed(seed)) < 0.3).float()


@pytest.mark.parametrize("name", cells())
def test_values_are_the_librarys_to_the_bit(name):
    torch.manual_seed(1)
    net, x = OneNeuron(cells()[name]()), spikes_in()
    with torch.no_grad():
        bare = net(x)
    rules = {"fc": dk.FreeDelay("axonal", init=0.0, estimator="exact")}
    if "R" in name:
        rules["neuron.recurrent"] = dk.FreeDelay("axonal", init=0.0, estimator="exact")
    dk.wrap_(net, rules, example=x)
    found = net(x)
    assert torch.equal(found, bare) and 0.01 < bare[..., :8].mean() < 0.6
    found.sum().backward()
    assert torch.isfinite(net.fc.dk.delay.delay.grad).all() and net.fc.dk.delay.delay.grad.abs().sum() > 0


@pytest.mark.parametrize("name", ["Synaptic", "RSynaptic zero", "LIFCell", "LIFRecurrentCell"])
def test_whole_delays_have_the_values_of_interpolation(name):
    found = []
    for estimator in ("exact", "interp", "none"):
        torch.manual_seed(1)
        net, x = OneNeuron(cells()[name]()), spikes_in()
        generator = torch.Generator().manual_seed(5)
        config = dk.FreeDelay("synaptic", max_delay=8, init="integers", estimator=estimator)
        rules = {"fc": config} | ({"neuron.recurrent": config} if "R" in name else {})
        found.append(dk.wrap_(net, rules, example=x, generator=generator)(x))
    torch.testing.assert_close(found[0], found[1], rtol=1e-5, atol=1e-5)
    assert torch.equal(found[1], found[2])


def test_readouts_keep_their_surrogate():
    """The value of a spike goes to the surrogate as ever, its time by the rule: the first step has no reset."""
    grads = {}
    for estimator in ("exact", "interp"):
        torch.manual_seed(1)
        net = OneNeuron(snn.Synaptic(0.7, 0.8))
        dk.wrap_(net, {"fc": dk.FreeDelay("axonal", init=0.0, estimator=estimator)}, example=spikes_in())
        out = net(torch.ones(1, 1, 6))
        (grads[estimator],) = torch.autograd.grad(out[0, 0, :8].sum(), net.fc.weight)
    torch.testing.assert_close(grads["exact"], grads["interp"])
    assert grads["exact"].abs().min() > 0


# --- sequences


class Pieces(nn.Module):
    def __init__(self, whole):
        super().__init__()
        torch.manual_seed(0)
        kinds = (norse.LIF, norse.LIF) if whole else (norse.LIFCell, norse.LIFCell)
        self.whole = whole
        self.fc1, self.fc2 = nn.Linear(6, 8), nn.Linear(8, 4)
        self.lif1, self.lif2 = (kind() for kind in kinds)
        with torch.no_grad():
            self.fc1.weight.mul_(12)
            self.fc2.weight.mul_(12)
        self.double()

    def forward(self, x):
        if self.whole:
            hidden, _ = self.lif1(self.fc1(x))
            spikes, state = self.lif2(self.fc2(hidden))
            return spikes, state.v
        one = two = None
        steps = []
        for step in x:
            hidden, one = self.lif1(self.fc1(step), one)
            spikes, two = self.lif2(self.fc2(hidden), two)
            steps.append(spikes)
        return torch.stack(steps), two.v


def test_whole_sequences_have_the_gradients_of_steps():
    x, found = spikes_in(40).double(), []
    for whole in (False, True):
        net = Pieces(whole)
        rules = {"fc*": dk.FreeDelay("synaptic", max_delay=6, estimator="exact")}
        dk.wrap_(net, rules, example=x, generator=torch.Generator().manual_seed(3))
        spikes, membrane = net(x)
        assert 0.01 < spikes.mean() < 0.4
        found.append((spikes, membrane, *torch.autograd.grad(membrane.sum() + spikes.sum(), list(net.parameters()))))
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-10)


# --- refusals


class Chain(nn.Module):
    def __init__(self, first, second, fc2=None):
        super().__init__()
        self.fc1, self.lif1, self.fc2, self.lif2 = nn.Linear(6, 8), first, fc2 or nn.Linear(8, 8), second

    def forward(self, x):
        states = [n.reset_mem() if hasattr(n, "reset_mem") else (None,) for n in (self.lif1, self.lif2)]
        states = [s if isinstance(s, tuple) else (s,) for s in states]
        for step in x:
            spikes, *states[0] = self.lif1(self.fc1(step), *states[0])
            spikes, *states[1] = self.lif2(self.fc2(spikes), *states[1])
        return spikes


DELTA = {
    "Leaky": lambda: snn.Leaky(0.9),
    "Lapicque": lambda: snn.Lapicque(0.9),
    "LIFBoxCell": lambda: norse.LIFBoxCell(),
    "Alpha": lambda: snn.Alpha(0.9, 0.8),
    "LIFAdExCell": lambda: norse.LIFAdExCell(),
    "Synaptic that quantises": lambda: snn.Synaptic(0.9, 0.8, state_quant=lambda x: x),
    "Synaptic that resets twice": lambda: snn.Synaptic(0.9, 0.8, reset_delay=False),
    "Synaptic without current": lambda: snn.Synaptic(0.0, 0.8),
}


@pytest.mark.parametrize("kind", DELTA)
def test_a_neuron_without_the_rule_is_refused_before_anything_is_touched(kind):
    net = Chain(DELTA[kind](), snn.Synaptic(0.9, 0.8))
    before = {n: type(m) for n, m in net.named_modules()}
    plan = dk.plan(net, {"fc1": dk.FreeDelay("axonal", estimator="exact")}, example=torch.zeros(3, 2, 6))
    assert len(plan.issues) == 1
    message = str(plan.issues[0])
    assert message.startswith("fc1") and "'lif1'" in message and "estimator='interp'" in message
    assert type(net.lif1).__name__ in message
    with pytest.raises(WrapError, match="interp"):
        dk.wrap_(net, plan)
    assert {n: type(m) for n, m in net.named_modules()} == before


@pytest.mark.parametrize("kind", ["Leaky", "LIFBoxCell", "Synaptic that never resets"])
def test_spikes_without_a_time_are_refused_at_their_source(kind):
    build = DELTA | {"Synaptic that never resets": lambda: snn.Synaptic(0.9, 0.8, reset_mechanism="none")}
    net = Chain(build[kind](), snn.Synaptic(0.9, 0.8))
    plan = dk.plan(net, {"fc2": dk.FreeDelay("axonal", estimator="exact")}, example=torch.zeros(3, 2, 6))
    assert len(plan.issues) == 1
    assert str(plan.issues[0]).startswith("fc2") and "'lif1'" in str(plan.issues[0])


def test_a_neuron_that_only_listens_need_not_reset():
    readouts = (snn.Synaptic(0.9, 0.8, reset_mechanism="none"), norse.LICell())
    for readout in readouts:
        net = Chain(snn.Synaptic(0.9, 0.8), readout)
        kind = type(readout)
        dk.wrap_(net, {"fc*": dk.FreeDelay("axonal", estimator="exact")}, example=torch.zeros(3, 2, 6))
        assert type(net.lif2) is kind and type(net.lif1) is not snn.Synaptic
        net(spikes_in()).sum().backward()
        assert net.fc2.dk.delay.delay.grad.abs().sum() > 0


def test_recurrence_without_a_current_is_refused():
    net = Chain(snn.RLeaky(0.9, linear_features=8), snn.Synaptic(0.9, 0.8))
    net.forward = None  # no run is needed for a neuron's own connection
    plan = dk.plan(net, {"lif1.recurrent": dk.At(dk.FreeDelay(estimator="exact"), reset="manual")})
    assert [str(issue) for issue in plan.issues if "synaptic current" in str(issue)]
    plan = dk.plan(net, {"fc1": dk.At(dk.FreeDelay(estimator="exact"), reset="manual")})
    assert "pass example=" in str(plan.issues[0])


class Both(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.lif1, self.lif2 = nn.Linear(6, 8), snn.Synaptic(0.9, 0.8), snn.Synaptic(0.9, 0.8)

    def forward(self, x):
        one, two = self.lif1.reset_mem(), self.lif2.reset_mem()
        for step in x:
            current = self.fc(step)
            (_, *one), (spikes, *two) = self.lif1(current, *one), self.lif2(current, *two)
        return spikes


def test_a_connection_with_two_listeners_is_refused():
    plan = dk.plan(Both(), {"fc": dk.FreeDelay(estimator="exact")}, example=torch.zeros(3, 2, 6))
    assert "'lif1', 'lif2'" in str(plan.issues[0])


class Conv(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.lif = nn.Conv2d(2, 3, 3), snn.Synaptic(0.9, 0.8)
        with torch.no_grad():
            self.conv.weight.mul_(4)

    def forward(self, x):
        state = self.lif.reset_mem()
        for step in x:
            spikes, *state = self.lif(self.conv(step), *state)
        return state[-1]


def test_convolutions_take_delays_before_them_only():
    x = (torch.rand(20, 2, 2, 5, 5, generator=torch.Generator().manual_seed(0)) < 0.3).float()
    plan = dk.plan(Conv(), {"conv": dk.FreeDelay("dendritic", estimator="exact")}, example=x)
    assert "axonal" in str(plan.issues[0])
    net = dk.wrap_(Conv(), {"conv": dk.FreeDelay("axonal", max_delay=6, estimator="exact")}, example=x)
    net(x).sum().backward()
    assert net.conv.dk.delay.delay.grad.abs().min() > 0


def test_spikes_that_are_mixed_on_their_way_are_an_error_at_the_call():
    class Pooled(Chain):
        def forward(self, x):
            one, two = self.lif1.reset_mem(), self.lif2.reset_mem()
            for step in x:
                spikes, *one = self.lif1(self.fc1(step), *one)
                _, *two = self.lif2(self.fc2(spikes + spikes.roll(1, -1)), *two)
            return two[-1]

    net = Pooled(snn.Synaptic(0.9, 0.8), snn.Synaptic(0.9, 0.8))
    dk.wrap_(net, {"fc2": dk.FreeDelay(estimator="exact")}, example=torch.zeros(3, 2, 6))
    with pytest.raises(HistoryError, match="fc2.*AddBackward0.*interp"):
        net(spikes_in())


# --- around the net


def wrapped_chain(**options):
    torch.manual_seed(2)
    net = Chain(snn.RSynaptic(0.8, 0.9, linear_features=8), snn.Synaptic(0.7, 0.8))

    class Stepped(Chain):
        def forward(self, x):
            one, two = self.lif1.reset_mem(), self.lif2.reset_mem()
            out = []
            for step in x:
                spikes, syn, mem = one = self.lif1(self.fc1(step), *one)
                last, *two = self.lif2(self.fc2(spikes), *two)
                out.append(torch.cat([last, two[-1]], -1))
            return torch.stack(out)

    net.__class__ = Stepped
    config = dk.FreeDelay("synaptic", max_delay=6, estimator="exact")
    rules = {"fc*": config, "lif1.recurrent": config}
    return dk.wrap_(net, rules, example=torch.zeros(3, 2, 6), generator=torch.Generator().manual_seed(4))


def slopes_of(net, x):
    return torch.autograd.grad(net(x)[-1].sum(), list(net.parameters()), allow_unused=True)


def same(one, two):
    return all(a is b or torch.equal(a, b) for a, b in zip(one, two, strict=True))


def test_copies_checkpoints_and_detours_keep_the_gradients(tmp_path):
    net, x = wrapped_chain(), spikes_in()
    wanted = slopes_of(net, x)
    dk.save(net, tmp_path / "exact")
    net.lif1.reset_mem(), net.lif2.reset_mem()  # snnTorch's states with a graph cannot be copied, wrapped or not
    twin = copy.deepcopy(net)
    assert same(slopes_of(twin, x), wanted)
    assert twin.fc1.dk.listener.module is twin.lif1 and twin.fc2.dk.listener.module is twin.lif2
    with dk.disabled(net):
        bare = slopes_of(net, x)
    with dk.discretized(net):
        assert same(slopes_of(net, x)[:2], wanted[:2])
    assert same(slopes_of(net, x), wanted)
    dk.unwrap_(net)
    unwrapped = dict(zip(dict(net.named_parameters()), slopes_of(net, x), strict=True))
    for (name, _), grad in zip(twin.named_parameters(), bare, strict=True):
        assert name not in unwrapped or torch.equal(grad, unwrapped[name])  # disabled: the library's own gradients
    dk.load(net, tmp_path / "exact")
    assert same(slopes_of(net, x), wanted)


def test_a_failed_wrap_leaves_no_trace(monkeypatch):
    net = Chain(snn.Synaptic(0.9, 0.8), snn.Synaptic(0.9, 0.8))
    before = {n: (type(m), sorted(m.__dict__)) for n, m in net.named_modules()}
    plan = dk.plan(net, {"fc*": dk.FreeDelay(estimator="exact")}, example=torch.zeros(3, 2, 6))
    monkeypatch.setattr("delaykit.wrapping.apply.retype_", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        dk.wrap_(net, plan)
    assert {n: (type(m), sorted(m.__dict__)) for n, m in net.named_modules()} == before


def test_a_rollout_runs_step_by_step():
    torch.manual_seed(0)
    neuron = snn.RSynaptic(0.8, 0.9, linear_features=5)
    config = dk.FreeDelay("synaptic", max_delay=4, estimator="exact")
    dk.wrap_(neuron, {"recurrent": config}, example=lambda: [neuron(torch.zeros(2, 5)) for _ in range(3)])
    currents = 0.4 * torch.rand(20, 2, 5)
    spikes, membrane = dk.rollout(neuron, currents)
    assert spikes.sum() > 5
    grads = torch.autograd.grad(membrane[-1].sum(), list(neuron.parameters()))
    neuron.reset_mem()
    for current in currents:
        spikes, _, mem = neuron(current)
    assert same(grads, torch.autograd.grad(mem.sum(), list(neuron.parameters())))


def test_rescaled_states_keep_values_and_histories_and_bound_the_gradient():
    torch.manual_seed(2)
    cell, x, found = snn.RSynaptic(0.8, 0.9, linear_features=6), spikes_in(60), []
    config = dk.FreeDelay("synaptic", max_delay=6, estimator="exact")
    generator = torch.Generator().manual_seed(1)
    dk.wrap_(cell, {"recurrent": config}, lambda: [cell(torch.zeros(2, 6)) for _ in range(3)], generator)
    for every in (1000, 5):
        spk, syn, mem = cell.reset_mem()
        drive = (0.5 * x).requires_grad_()
        for t, step in enumerate(drive):
            if t and t % every == 0:
                syn, mem = rescale_gradient(syn), rescale_gradient(mem)
            spk, syn, mem = cell(step, spk, syn, mem)
        found.append((mem.detach(), torch.autograd.grad(100 * mem.sum(), drive)[0]))
    assert torch.equal(found[0][0], found[1][0])
    assert found[1][1][:50].norm() < 0.5 * found[0][1][:50].norm()


def test_constants_that_change_are_read_anew():
    net, x = wrapped_chain(), spikes_in()
    before = slopes_of(net, x)
    with torch.no_grad():
        net.lif2.beta.fill_(0.5)
    after = slopes_of(net, x)
    fresh = wrapped_chain()
    fresh.lif2.beta = torch.tensor(0.5)
    assert same(after, slopes_of(fresh, x)) and not same(before, after)
    assert float(timing_of(net.fc2.dk.listener.adapter().dynamics(net.lif2)).beta) == 0.5


def test_every_delay_component_has_the_switch():
    delrec = pytest.importorskip("delaykit_delrec")
    torch.manual_seed(1)
    net, x = OneNeuron(snn.RSynaptic(0.7, 0.8, linear_features=8)), spikes_in()
    rules = {"fc": delrec.DCLS(9, estimator="exact"), "neuron.recurrent": delrec.DelRec(max_delay=9, estimator="exact")}
    dk.wrap_(net, rules, example=x)
    net(x).sum().backward()
    for part in (net.fc.dk.delay, net.neuron.recurrent.dk.delay):
        assert part.delay.grad.abs().sum() > 0 and part.taps().index.shape[0] == 1


def test_training_with_exact_gradients_learns():
    torch.manual_seed(0)
    net, x = wrapped_chain(), spikes_in(30, 8)
    target = 0.3 * torch.randn(8, 8, generator=torch.Generator().manual_seed(8))
    optimizer = torch.optim.Adam(dk.param_groups(net, lr=2e-3, delay_lr=2e-2))
    dk.attach(optimizer, net)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        loss = (net(x)[-1, :, 8:] - target).square().mean()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        losses.append(float(loss))
    assert min(losses[-10:]) < 0.8 * losses[0]
