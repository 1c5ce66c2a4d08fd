"""One connection of weight 1 before one neuron that only integrates: what arrives when can be read off by eye."""

from __future__ import annotations

import contextlib

import pytest
import torch
from torch import nn

import delaykit as dk

snn = pytest.importorskip("snntorch", reason="wraps snntorch models")

HIGH = 1e9  # a threshold that is never met: the membrane is the decayed sum of the currents


def late(d, granularity="axonal", **options):
    """Return a fixed start of a free delay of at most five steps."""
    return dk.FreeDelay(granularity, max_delay=5, init=d, **options)


def ones(pre=1, post=1):
    """Return a Linear of weight 1 without bias; of several neurons, one to one."""
    fc = nn.Linear(pre, post, bias=False)
    nn.init.ones_(fc.weight) if 1 in (pre, post) else nn.init.eye_(fc.weight)
    return fc


def leaky(beta=0.9, **options):
    """Return a snnTorch neuron that never fires."""
    return snn.Leaky(beta, threshold=HIGH, **options)


def spikes(time, *at, batch=1, pre=1):
    """Return (time, batch, pre) with ones at the given (time, row) or (time, row, channel)."""
    x = torch.zeros(time, batch, pre)
    for place in at:
        x[place if isinstance(place, tuple) else (place, 0, 0)] = 1.0
    return x


@contextlib.contextmanager
def currents(module):
    """Collect what a module returns, call by call."""
    seen: list[torch.Tensor] = []
    handle = module.register_forward_hook(
        lambda _, __, output: seen.append((output if isinstance(output, torch.Tensor) else output[0]).detach().clone())
    )
    try:
        yield seen
    finally:
        handle.remove()


def arrivals(seen, row=0):
    """Say at which calls a current came, in one row."""
    return {k: round(float(c[row].sum()), 4) for k, c in enumerate(seen) if len(c) > row and bool(c[row].any())}


class Loop(nn.Module):
    """``fc`` and ``lif`` in a loop inside forward; ``between(net, t, mem)`` may change anything before step t."""

    def __init__(self, pre=1, post=1, **options):
        super().__init__()
        self.fc, self.lif = ones(pre, post), leaky(**options)

    def forward(self, x, between=None):
        mem, out = self.lif.reset_mem(), []
        for t in range(len(x)):
            if between is not None:
                mem = between(self, t, mem)
            _, mem = self.lif(self.fc(x[t]), mem)
            out.append(mem)
        return out


def looped(d=3, granularity="axonal", batch=2, **options):
    """Return a wrapped :class:`Loop`, reset policy ``root``."""
    net = Loop(**options)
    return dk.wrap_(net, {"fc": late(d, granularity)}, example=torch.zeros(6, batch, net.fc.in_features))


def outer(d=3, granularity="axonal", batch=2, pre=1, post=1, **options):
    """Return a wrapped Sequential that is called step by step, reset policy ``follow``."""
    net = nn.Sequential(ones(pre, post), leaky(init_hidden=True, **options))
    return dk.wrap_(net, {"0": late(d, granularity)}, example=torch.zeros(batch, pre))


def stepped(net, x, between=None, start=True):
    """Run an outer loop; ``between(net, t)`` may change anything before step t. Returns the currents of layer 0."""
    if start:
        net[1].reset_mem()
    with currents(net[0]) as seen:
        for t in range(len(x)):
            if between is not None:
                between(net, t)
            net(x[t])
    return seen


@contextlib.contextmanager
def exact_or_refused():
    """Allow a HistoryError (or another of delaykit's own errors) instead of the right number; never a wrong one."""
    try:
        yield
    except dk.DelaykitError as error:
        assert error.fix or "To go on" in str(error), f"{error!r} does not say how to go on"
