"""One layer that drives several neurons: its line is emptied when all of them begin anew, and not by one alone."""

from __future__ import annotations

import copy

import pytest
import torch
from rigs import snn
from torch import nn

import delaykit as dk

STEPS, AT, DELAY = 9, 4, 3
ORDERS = [("a", "b"), ("b", "a")]


def frames():
    return torch.rand(STEPS, 2, 2, generator=torch.Generator().manual_seed(0))


class Pair(nn.Module):
    """A layer before a fast and a slow neuron; called per step, or with its loop inside."""

    def __init__(self, inside=False):
        super().__init__()
        self.inside = inside
        self.f = nn.Linear(2, 2, bias=False)
        self.a, self.b = (snn.Leaky(beta, threshold=1e9, init_hidden=not inside) for beta in (0.5, 0.8))

    def forward(self, x, reset=()):
        if not self.inside:
            current = self.f(x)
            self.a(current), self.b(current)
            return torch.stack([self.a.mem, self.b.mem])
        one, two, out = self.a.reset_mem(), self.b.reset_mem(), []
        for t, frame in enumerate(x):
            if t == AT:
                one = self.a.reset_mem() if "a" in reset else one
                two = self.b.reset_mem() if "b" in reset else two
            current = self.f(frame)
            one, two = self.a(current, one)[1], self.b(current, two)[1]
            out.append(torch.stack([one, two]))
        return torch.stack(out)


def rule():
    return {"f": dk.FreeDelay("axonal", max_delay=5, init=float(DELAY))}


MASK = torch.tensor([[0.0], [1.0]])


def stepped(reset=(), by=lambda neuron: neuron.reset_mem(), then=lambda net: net):
    torch.manual_seed(0)
    net = Pair()
    dk.wrap_(net, rule(), example=lambda: (net.a.reset_mem(), net.b.reset_mem(), [net(v) for v in frames()]))
    net.a.reset_mem(), net.b.reset_mem()
    net, out = then(net), []
    for t, frame in enumerate(frames()):
        if t == AT:
            for name in reset:
                by(getattr(net, name))
        out.append(net(frame).clone())
    return torch.stack(out)


def by_themselves(reset=(), by=lambda neuron: neuron.reset_mem()):
    """The same modules without a root: nobody calls the model."""
    torch.manual_seed(0)
    net = Pair()
    parts = nn.ModuleDict({"f": net.f, "a": net.a, "b": net.b})

    def run(v):
        current = parts.f(v)
        parts.a(current), parts.b(current)
        return torch.stack([parts.a.mem, parts.b.mem])

    dk.wrap_(parts, rule(), example=lambda: (net.a.reset_mem(), net.b.reset_mem(), [run(v) for v in frames()]))
    net.a.reset_mem(), net.b.reset_mem()
    out = []
    for t, frame in enumerate(frames()):
        if t == AT:
            for name in reset:
                by(parts[name])
        out.append(run(frame).clone())
    return torch.stack(out)


def within(reset=()):
    torch.manual_seed(0)
    net = dk.wrap_(Pair(inside=True), rule(), example=(frames(), ("a", "b")))
    return net(frames(), reset)


def zero(neuron):
    neuron.mem = torch.zeros_like(neuron.mem)


def zero_first_row(neuron):
    neuron.mem = neuron.mem * MASK


def by_queue(reset, keep=0.0):
    torch.manual_seed(0)
    weight, queue, mem, out = Pair().f.weight, [torch.zeros(2, 2)] * (DELAY + 1), [0.0, 0.0], []
    for t, frame in enumerate(frames()):
        if t == AT and reset:
            queue, mem = [spikes * keep for spikes in queue], [m * keep for m in mem]
        queue = [frame, *queue[:-1]]
        mem = [beta * m + queue[DELAY] @ weight.t() for beta, m in zip((0.5, 0.8), mem, strict=True)]
        out.append(torch.stack(mem))
    return torch.stack(out)


@pytest.mark.parametrize("order", ORDERS)
def test_all_of_them_reset_between_two_steps_empty_the_line(order):
    torch.testing.assert_close(stepped(order), by_queue(True))
    torch.testing.assert_close(by_themselves(order), by_queue(True))
    torch.testing.assert_close(within(order), by_queue(True))
    for run in (stepped, by_themselves, within):
        torch.testing.assert_close(run(), by_queue(False))


@pytest.mark.parametrize("order", ORDERS)
def test_rows_of_all_of_them_at_zero_empty_these_rows(order):
    for run in (stepped, by_themselves):
        torch.testing.assert_close(run(order, zero), by_queue(True))
        torch.testing.assert_close(run(order, zero_first_row), by_queue(True, MASK))


@pytest.mark.parametrize("run", [stepped, by_themselves, within])
@pytest.mark.parametrize("alone", ["a", "b"])
def test_a_reset_of_one_alone_is_refused(run, alone):
    with pytest.raises(dk.HistoryError, match="reset both"):
        run(alone)


@pytest.mark.parametrize("alone", ["a", "b"])
def test_a_membrane_at_zero_is_such_a_reset(alone):
    for run in (stepped, by_themselves):
        for by in (zero, zero_first_row):
            with pytest.raises(dk.HistoryError, match="reset both"):
                run(alone, by)
    with pytest.raises(dk.HistoryError, match="reset both"):
        stepped(alone, then=copy.deepcopy)  # a copy keeps to the rule


def test_one_alone_may_be_reset_where_nothing_is_under_way():
    torch.manual_seed(0)
    net = Pair()
    dk.wrap_(net, rule(), example=lambda: (net.a.reset_mem(), net.b.reset_mem(), [net(v) for v in frames()]))
    for alone, other in ORDERS:
        net.a.reset_mem(), net.b.reset_mem()
        net(frames()[0])
        for _ in range(DELAY + 2):
            net(torch.zeros(2, 2))
        kept = getattr(net, other).mem.clone()
        getattr(net, alone).reset_mem()
        net(torch.zeros(2, 2))
        assert not getattr(net, alone).mem.any()
        torch.testing.assert_close(getattr(net, other).mem, kept * {"a": 0.5, "b": 0.8}[other])


def test_by_hand_the_line_is_emptied_for_all_who_hear_it():
    torch.manual_seed(0)
    net = Pair()
    component = dk.At(*rule().values(), reset="manual")
    dk.wrap_(net, {"f": component}, example=lambda: (net.a.reset_mem(), net.b.reset_mem(), [net(v) for v in frames()]))
    dk.reset(net), net.a.reset_mem(), net.b.reset_mem()
    for t, frame in enumerate(frames()):
        if t == AT:
            net.a.reset_mem()
        net(frame)
    torch.testing.assert_close(net.b.mem, by_queue(False)[-1, 1])
