"""Threads that share a wrapped net: histories of their own, or an error."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from rigs import Loop, late, leaky, ones, spikes
from torch import nn

import delaykit as dk

WORKERS = 4


def together(run, inputs):
    """Run every input in a pool whose threads take turns at every step; return results or delaykit's errors."""
    gate = threading.Barrier(WORKERS)

    def one(x):
        def wait():
            try:
                gate.wait(5)
            except threading.BrokenBarrierError:
                return

        try:
            with torch.no_grad():
                return run(x, wait)
        except dk.DelaykitError as error:
            gate.abort()
            return error

    with ThreadPoolExecutor(WORKERS) as pool:
        return list(pool.map(one, inputs))


def check(run):
    inputs = [spikes(8, k, k + 2) * (k + 1) for k in range(WORKERS)]
    with torch.no_grad():
        want = [run(x, lambda: None) for x in inputs]
    assert bool(want[0].any())
    for got, expected in zip(together(run, inputs), want, strict=True):
        if isinstance(got, dk.DelaykitError):
            assert "thread" in str(got)
        else:
            torch.testing.assert_close(got, expected)


class Inside(nn.Module):
    def __init__(self, neuron):
        super().__init__()
        self.fc, self.neuron = ones(), neuron

    def forward(self, x, wait):
        state, out = None, []
        for step in x:
            wait()
            y, state = self.neuron(self.fc(step), state)
            out.append(y)
        return torch.stack(out)


def test_a_norse_net_with_its_loop_inside():
    norse = pytest.importorskip("norse.torch", reason="wraps norse models")
    net = Inside(norse.LICell())
    dk.wrap_(net, {"fc": late(3)}, example=(spikes(8), lambda: None))
    check(net)


def test_a_norse_cell_that_carries_its_histories():
    norse = pytest.importorskip("norse.torch", reason="wraps norse models")
    torch.manual_seed(0)

    class Cell(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell = norse.LIFRecurrentCell(1, 3)
            with torch.no_grad():
                self.cell.input_weights.fill_(9.0)

        def forward(self, x, wait):
            state, out = None, []
            for step in x:
                wait()
                _, state = self.cell(step, state)
                out.append(state.v + state.i)
            return torch.stack(out)

    net = Cell()
    dk.wrap_(net, {"cell.*": late(2)}, example=(spikes(8), lambda: None))
    check(net)


def test_a_snntorch_net_with_explicit_states():
    class Explicit(Loop):
        def forward(self, x, wait):
            mem, out = torch.zeros(x.shape[1], 1), []
            for step in x:
                wait()
                mem = 0.9 * mem + self.fc(step)
                out.append(mem)
            return torch.stack(out)

    net = Explicit()
    dk.wrap_(net, {"fc": dk.At(late(3), reset="root")}, example=(spikes(8), lambda: None))
    check(net)


class Stepped(nn.Module):
    """One step a call, its state the caller's; ``meet`` may let another thread in between the two layers."""

    def __init__(self):
        super().__init__()
        self.fc, self.lif = ones(), leaky()

    def forward(self, x, mem=None, meet=lambda: None):
        mem = self.lif.init_leaky() if mem is None else mem
        current = self.fc(x)
        meet()
        return self.lif(current, mem)[1]


def test_a_step_while_another_thread_is_in_the_midst_of_one():
    """The loop is outside and each thread has its own membranes, but there is one line."""
    net, x = Stepped(), spikes(3, 0)
    dk.wrap_(net, {"fc": late(1)}, example=lambda: net(x[1], net(x[0])))
    refused, inside, over = [], threading.Event(), threading.Event()

    def other():
        inside.wait(5)
        try:
            net(spikes(1, 0)[0])
        except dk.HistoryError as error:
            refused.append(str(error))
        over.set()

    def meet():
        inside.set()
        over.wait(5)

    thread = threading.Thread(target=other)
    thread.start()
    mem = net(x[1], net(x[0]), meet)
    thread.join()
    assert len(refused) == 1 and "another thread is inside" in refused[0]
    assert float(mem) == 1.0  # the spike of step 0, one step late, with none of the other thread's


def test_a_sequence_may_go_on_in_another_thread():
    """No false alarm: a server's pool may take any thread for the next step."""
    net, mem, out = Stepped(), None, []
    dk.wrap_(net, {"fc": late(1)}, example=lambda: net(spikes(1)[0], net(spikes(1)[0])))
    for step in spikes(4, 0):
        with ThreadPoolExecutor(1) as pool:
            mem = pool.submit(net, step, mem).result()
        out.append(round(float(mem), 4))
    assert out == [0.0, 1.0, 0.9, 0.81]


def test_one_call_after_the_other_from_different_threads():
    """No false alarm: a data loader's worker or a server may call from a thread of its own."""
    net = Loop()
    dk.wrap_(net, {"fc": late(3)}, example=spikes(8))
    want = torch.stack(net(spikes(8, 1)))
    for _ in range(2):
        with ThreadPoolExecutor(1) as pool:
            got = torch.stack(pool.submit(net, spikes(8, 1)).result())
        torch.testing.assert_close(got, want)
