"""Nets for the tests of exact gradients: those of continuous time in both libraries, and small ones that fire."""

from __future__ import annotations

import math

import continuous
import numpy as np
import pytest
import torch
from continuous import TAU_MEM, TAU_SYN, cosine
from continuous import grid as grid
from torch import nn

import delaykit as dk
from delaykit.functional.event_gradients.rule import NeuronConstants
from delaykit.testing.nets.reference import surrogate_spike

snn = pytest.importorskip("snntorch", reason="needs snnTorch, the extra `snntorch`")
norse = pytest.importorskip("norse.torch", reason="needs Norse, the extra `norse`")

UNTIL, COEFFICIENTS = 12.0, np.array([1.0, -0.7, 0.4])
CLOSE = {0.1: 0.97, 0.02: 0.999}


def drawn(seed, neurons=3, sources=4):
    """A recurrent network in continuous time and its input spikes, on the grid of the longest steps, as data are."""
    random = np.random.default_rng(seed)
    feed, feed_delay = random.uniform(0.1, 0.45, (neurons, sources)), random.uniform(0.5, 4, (neurons, sources))
    back, back_delay = random.uniform(-0.15, 0.3, (neurons, neurons)), random.uniform(0.5, 4, (neurons, neurons))
    np.fill_diagonal(back, 0)
    inputs = [(m, round(float(at), 1)) for m in range(sources) for at in np.sort(random.uniform(0, 15, 3))]
    return np.concatenate([feed, back], 1), np.concatenate([feed_delay, back_delay], 1), inputs


def scale(dt):
    """What snnTorch's current is for a weight of 1 in continuous time: K of a step of dt ms."""
    decays = (torch.tensor(math.exp(-dt / tau), dtype=torch.float64) for tau in (TAU_SYN, TAU_MEM))
    return dt * float(NeuronConstants(*decays).response())


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
    assert len(spikes) > 1
    used = weight != 0
    return [cosine(one[used], two[used]) for one, two in zip(found, wanted, strict=True)], count == len(spikes)


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
