"""Bare models that the fuzzer runs: one layer structure, four ways of looping."""

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


NAMES = {"outer": ("fc1", "fc2"), "inner": ("fc1", "fc2"), "chain": ("0", "2")}


def build(kind):
    return {"outer": Outer, "inner": Inner, "chain": chain}[kind]().double()


def layers(net, kind):
    """Return the two connections of a model."""
    return [net.get_submodule(name) for name in NAMES[kind]]
