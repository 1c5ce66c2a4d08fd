"""Small nets of snnTorch and Norse, and their twins with a queue in the place of each delay, in plain torch."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from nets import Spike
from torch import nn
from torch.utils._pytree import tree_map

import delaykit as dk

norse = pytest.importorskip("norse.torch", reason="trains Norse models")
snn = pytest.importorskip("snntorch", reason="trains snnTorch models")

WIDTHS, STEPS, LONGEST = (4, 6, 3), 10, 5
PAIRS = [("axonal", "synaptic"), ("dendritic", "axonal")]  # delays of the first and of the second layer


class Queued(nn.Module):
    """A Linear behind (dendritic: before) queues, one step an entry, read at real delays by interpolation."""

    def __init__(self, linear, delays, dendritic):
        super().__init__()
        self.weight, self.bias = copy.deepcopy(linear.weight), copy.deepcopy(linear.bias)
        self.delay, self.dendritic, self.queue = nn.Parameter(delays.detach().clone()), dendritic, []

    def forward(self, x):
        self.queue.append(x @ self.weight.t() if self.dendritic else x)
        current = self.bias
        for age, entry in enumerate(reversed(self.queue)):
            share = (1 - (age - self.delay).abs()).clamp(min=0)
            current = current + (entry * share.flatten() if self.dendritic else entry @ (self.weight * share).t())
        return current


class Looped(nn.Module):
    """The loop is inside: reset policy ``root``."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(i, j) for i, j in zip(WIDTHS, WIDTHS[1:], strict=False))
        self.neurons = nn.ModuleList(snn.Leaky(beta, spike_grad=Spike.apply) for beta in (0.9, 0.8))

    def forward(self, frames):
        state, out = [neuron.reset_mem() for neuron in self.neurons], []
        for x in frames:
            for k, (layer, neuron) in enumerate(zip(self.layers, self.neurons, strict=True)):
                x, state[k] = neuron(layer(x), state[k])
            out.append(state[-1])
        return torch.stack(out)


def outer():
    return nn.Sequential(
        nn.Linear(*WIDTHS[:2]), snn.Leaky(0.9, init_hidden=True, spike_grad=Spike.apply),
        nn.Linear(*WIDTHS[1:]), snn.Leaky(0.8, init_hidden=True, output=True, spike_grad=Spike.apply),
    )  # fmt: skip


def chain():
    return norse.SequentialState(nn.Linear(*WIDTHS[:2]), norse.LIFCell(), nn.Linear(*WIDTHS[1:]), norse.LICell())


MAKES = {"root": Looped, "follow": outer, "carried": chain}
PLACES = {"root": ("layers.0", "layers.1"), "follow": ("0", "2"), "carried": ("0", "2")}


def frames(seed, batch=3, steps=STEPS):
    """Return spikes (time, batch, channel)."""
    drawn = torch.rand(steps, batch, WIDTHS[0], generator=torch.Generator().manual_seed(seed))
    return 2 * (drawn < 0.5).double()


class Run:
    """One net, driven step by step or by whole sequences; ``queued`` tells a twin."""

    def __init__(self, kind, net, queued=False):
        self.kind, self.net, self.queued, self.state = kind, net, queued, None
        self.optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
        if not queued:
            dk.attach(self.optimizer, net)

    def queues(self):
        return [module for module in self.net.modules() if isinstance(module, Queued)]

    def begin(self):
        self.state = None
        for queued in self.queues():
            queued.queue = []
        if self.kind == "follow":
            self.net[1].reset_mem(), self.net[3].reset_mem()

    def step(self, x):
        if self.kind == "follow":
            return self.net(x)[1]
        out, self.state = self.net(x, self.state)
        return out

    def cut(self):
        """Truncate backpropagation here, as a user of the library does."""
        for queued in self.queues():
            queued.queue = [entry.detach() for entry in queued.queue]
        for neuron in self.net.modules():
            if isinstance(neuron, snn.Leaky):
                neuron.mem = neuron.mem.detach()
        self.state = tree_map(lambda v: v.detach() if hasattr(v, "detach") else v, self.state)

    def __call__(self, x):
        self.begin()
        return self.net(x) if self.kind == "root" else torch.stack([self.step(frame) for frame in x])

    def learn(self):
        """Step the optimizer; the twin's delays go back into their bounds by hand."""
        self.optimizer.step()
        self.optimizer.zero_grad()
        for queued in self.queues():
            queued.delay.data.clamp_(0, LONGEST)

    def train(self, sequences):
        for x in sequences:
            loss_of(self(x)).backward()
            self.learn()
        return self

    def parameters(self):
        return {name.replace("dk.delay.", ""): value for name, value in self.net.named_parameters()}


def loss_of(out):
    return (out - 0.3).square().mean()


def pair(kind, granularities):
    """Return a wrapped net and its twin, of equal parameters."""
    torch.manual_seed(0)
    net = MAKES[kind]().double()
    rules = {
        place: dk.FreeDelay(how, max_delay=LONGEST, init="uniform")
        for place, how in zip(PLACES[kind], granularities, strict=True)
    }
    x = frames(99)
    example = {"root": x, "follow": x[0], "carried": lambda: net(x[0], None)}[kind]
    dk.wrap_(net, rules, example=example)
    for neuron in net.modules():
        if isinstance(neuron, snn.Leaky):
            neuron.reset_mem()
    twin = dk.unwrap_(copy.deepcopy(net))
    for place, how in zip(PLACES[kind], granularities, strict=True):
        wrapped, bare = net.get_submodule(place), twin.get_submodule(place)
        parent, _, name = place.rpartition(".")
        twin.get_submodule(parent)._modules[name] = Queued(bare, wrapped.dk.delay.delays(), how == "dendritic")
    return Run(kind, net), Run(kind, twin, queued=True)


def assert_agree(one, two):
    """Hold all parameters of two runs against each other."""
    mine, theirs = one.parameters(), two.parameters()
    assert mine.keys() == theirs.keys()
    for name, value in mine.items():
        torch.testing.assert_close(value.flatten(), theirs[name].flatten(), rtol=1e-7, atol=1e-9, msg=name)


def pickled(net):
    """Save a net as users do; None where the library's own parts do not pickle."""
    file = io.BytesIO()
    try:
        torch.save(net, file)
    except Exception:  # Norse makes its parameters' classes anew, whose pickles nobody finds
        return None
    file.seek(0)
    return torch.load(file, weights_only=False)
