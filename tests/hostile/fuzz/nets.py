"""Bare models that the fuzzer runs: two connections, four ways of looping."""

from __future__ import annotations

import snntorch as snn
import torch
from torch import nn

PRE, HIDDEN, POST = 3, 4, 2


class Spike(torch.autograd.Function):
    """Spike in the dtype of the membrane: snnTorch's own surrogates return float32, whatever they are given."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return (x > 0).to(x.dtype)

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return grad / (1 + (3 * x) ** 2)


def leaky(**options):
    return snn.Leaky(0.8, spike_grad=Spike.apply, threshold=0.6, **options)


class Outer(nn.Module):
    """Called once a step; hidden membranes."""

    def __init__(self):
        super().__init__()
        self.fc1, self.lif1 = nn.Linear(PRE, HIDDEN), leaky(init_hidden=True)
        self.fc2, self.lif2 = nn.Linear(HIDDEN, POST), leaky(init_hidden=True, output=True)

    def forward(self, x):
        return self.lif2(self.fc2(self.lif1(self.fc1(x))))[1]


class Inner(nn.Module):
    """The loop inside, with explicit membranes; ``visit(t, states)`` may change anything before step t.

    ``views`` streams share all layers. ``call(t)`` says whether the first layer is called in this step.
    """

    def __init__(self):
        super().__init__()
        self.fc1, self.lif1 = nn.Linear(PRE, HIDDEN), leaky()
        self.fc2, self.lif2 = nn.Linear(HIDDEN, POST), leaky()

    def forward(self, x, visit=None, views=1, call=lambda t: True):
        x0 = x[0]
        states = [[x0.new_zeros(len(x0), HIDDEN), x0.new_zeros(len(x0), POST)] for _ in range(views)]
        out = []
        for t in range(len(x)):
            if visit is not None:
                visit(t, states)
            for k in range(views):
                one, two = states[k]
                step = x[t][: len(one)] * (k + 1)
                drive = self.fc1(step) if call(t) else step.new_zeros(len(step), HIDDEN)
                spk, one = self.lif1(drive, one)
                _, two = self.lif2(self.fc2(spk), two)
                states[k] = [one, two]
                out.append(two)
        return out


def chain():
    """Return Norse's SequentialState, its loop outside."""
    import norse.torch as norse

    p = norse.LIFParameters(tau_mem_inv=torch.tensor(300.0), v_th=torch.tensor(0.6))
    layers = nn.Linear(PRE, HIDDEN), norse.LIFCell(p), nn.Linear(HIDDEN, POST), norse.LICell()
    return norse.SequentialState(*layers)


def cell():
    """Return a Norse cell that holds both of its weights, its loop outside."""
    import norse.torch as norse

    p = norse.LIFParameters(tau_mem_inv=torch.tensor(300.0), v_th=torch.tensor(0.6))
    return norse.LIFRecurrentCell(PRE, HIDDEN, p)


class Held:
    """A weight that a cell holds, looking like a connection."""

    bias = None

    def __init__(self, owner: nn.Module, name: str) -> None:
        self.owner, self.name = owner, name

    @property
    def weight(self) -> nn.Parameter:
        return getattr(self.owner, f"{self.name}_weights")

    @weight.setter
    def weight(self, value: nn.Parameter) -> None:
        setattr(self.owner, f"{self.name}_weights", value)

    @property
    def dk(self):
        return self.owner.dk[self.name]


def take_currents_from(net, lines):
    """Let a bare cell take both its currents from ``lines``, in place of its own products."""
    into, back = lines
    step, eye = net.activation, torch.eye(HIDDEN, dtype=torch.float64)

    def activation(x, state, *rest):
        current = into.run(x) + back.run(state.z.double())
        return step(current, state, eye, torch.zeros_like(eye), *rest[2:])

    net.activation = activation


def before_first_step(net, call):
    """Let a cell call a function inside its first step, where it has its histories and has not used them."""
    fresh = net.state_fallback

    def state_fallback(x):
        call()
        return fresh(x)

    net.state_fallback = state_fallback


NAMES = {"outer": ("fc1", "fc2"), "inner": ("fc1", "fc2"), "chain": ("0", "2"), "cell": ("input", "recurrent")}


def build(kind):
    return {"outer": Outer, "inner": Inner, "chain": chain, "cell": cell}[kind]().double()


def layers(net, kind):
    """Return the two connections of a model."""
    if kind == "cell":
        return [Held(net, name) for name in NAMES[kind]]
    return [net.get_submodule(name) for name in NAMES[kind]]
