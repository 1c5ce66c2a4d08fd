"""Streams in chunks, windows within a call, loops over another method: continue, or raise."""

from __future__ import annotations

import pytest
import rigs
import torch
from rigs import Loop, arrivals, currents, exact_or_refused, late, leaky, ones, snn, spikes
from snntorch import utils
from torch import nn

import delaykit as dk


class Stream(nn.Module):
    """The loop is inside; the neuron goes on from the membrane it left itself."""

    def __init__(self):
        super().__init__()
        self.fc, self.lif = ones(), leaky(init_hidden=True)

    def forward(self, x):
        return torch.stack([self.lif(self.fc(step)) for step in x])


class Kept(Stream):
    """The same without ``init_hidden``: the neuron is called without its state and takes the one it has."""

    def __init__(self):
        super().__init__()
        self.lif = leaky()

    def forward(self, x):
        return torch.stack([self.lif(self.fc(step))[1] for step in x])


@pytest.mark.parametrize("build", [Stream, Kept])
def test_chunks_go_on_from_the_membrane_that_the_neuron_left(build):
    """Spike at t 3, delay 3, chunks of four steps: the current comes at t 6, in the second chunk."""
    net = build()
    dk.wrap_(net, {"fc": late(3)}, example=spikes(4))
    net.lif.reset_mem()
    with exact_or_refused(), currents(net.fc) as seen:
        for chunk in spikes(12, 3).split(4):
            net(chunk)
        assert arrivals(seen) == {6: 1.0}


@pytest.mark.parametrize("build", [Stream, Kept])
def test_chunks_after_a_reset_begin_anew(build):
    net = build()
    dk.wrap_(net, {"fc": late(3)}, example=spikes(4))
    with currents(net.fc) as seen:
        for chunk in spikes(12, 3).split(4):
            net.lif.reset_mem()
            net(chunk)
    assert arrivals(seen) == {}


@pytest.mark.parametrize("build", [Stream, Kept])
def test_chunks_in_the_example(build):
    net = build()
    x = spikes(12, 3)

    def run():
        net.lif.reset_mem()
        for chunk in x.split(4):
            net(chunk)

    dk.wrap_(net, {"fc": late(3)}, example=run)
    with exact_or_refused(), currents(net.fc) as seen:
        run()
        assert arrivals(seen) == {6: 1.0}


class Flagged(Loop):
    """``forward(x, fresh)``: the caller says whether the membrane goes on."""

    def forward(self, x, fresh=True):
        mem = self.lif.reset_mem() if fresh else self.lif.mem
        for step in x:
            _, mem = self.lif(self.fc(step), mem)
        return mem


def test_a_call_that_goes_on_where_the_example_began_anew():
    net = Flagged()
    dk.wrap_(net, {"fc": late(3)}, example=spikes(4))
    with exact_or_refused(), currents(net.fc) as seen:
        net(spikes(4, 3))
        net(spikes(4), False)
        assert arrivals(seen) == {6: 1.0}


def test_a_call_that_goes_on_with_nothing_under_way():
    net = Flagged()
    dk.wrap_(net, {"fc": late(3)}, example=spikes(4))
    with exact_or_refused(), currents(net.fc) as seen:
        net(spikes(4, 0))
        net(spikes(4), False)
        assert arrivals(seen) == {3: 1.0}


class Windows(Loop):
    """A forward that resets at every window of four steps."""

    def __init__(self, way):
        super().__init__(init_hidden=way == "utils.reset")
        self.way = way

    def forward(self, x):
        out = []
        for window in x.split(4):
            if self.way == "utils.reset":
                utils.reset(self)
            mem = torch.zeros(x.shape[1], 1) if self.way == "zeros" else None if self.lif.init_hidden else 0
            mem = self.lif.reset_mem() if self.way == "reset_mem" else mem
            for step in window:
                if self.lif.init_hidden:
                    self.lif(self.fc(step))
                else:
                    _, mem = self.lif(self.fc(step), mem)
            out.append(mem)
        return out


@pytest.mark.parametrize("way", ["reset_mem", "utils.reset", "zeros"])
@pytest.mark.parametrize("length", [4, 8])
def test_windows_within_a_call(way, length):
    """A spike at the end of the first window is lost with it, as the membrane is; or the run is refused."""
    net = Windows(way)
    try:
        dk.wrap_(net, {"fc": late(3)}, example=spikes(length))
    except dk.WrapError as error:
        assert "fc" in str(error) and "manual" in str(error)
        return
    with exact_or_refused(), currents(net.fc) as seen:
        net(spikes(8, 0, 3))  # the first has arrived, so that the membrane is not zero when the window ends
        assert arrivals(seen) == {3: 1.0}
    with exact_or_refused(), currents(net.fc) as seen:
        net(spikes(8, 0, 5))
        assert arrivals(seen) == {3: 1.0}


class Method(Loop):
    """The loop calls another method than forward."""

    def step(self, x):
        return self.lif(self.fc(x))


@pytest.mark.parametrize("hidden", [False, True])
def test_an_example_that_loops_another_method(hidden):
    """No root call was seen: the loop is outside. What runs in the example runs afterwards."""
    net = Method(init_hidden=hidden)

    def run(x):
        net.lif.reset_mem()
        for step in x:
            net.step(step)

    dk.wrap_(net, {"fc": late(3)}, example=lambda: run(spikes(6)))
    for _ in range(2):
        with currents(net.fc) as seen:
            run(spikes(6, 1))
        assert arrivals(seen) == {4: 1.0}


def test_an_example_that_calls_parts_of_the_net():
    net = nn.ModuleDict({"fc": ones(), "lif": leaky(init_hidden=True)})

    def run(x):
        net["lif"].reset_mem()
        for step in x:
            net["lif"](net["fc"](step))

    dk.wrap_(net, {"fc": late(3)}, example=lambda: run(spikes(6)))
    with currents(net["fc"]) as seen:
        run(spikes(6, 1))
        run(spikes(6, 1))
    assert arrivals(seen) == {4: 1.0, 10: 1.0}


def test_early_exit_between_two_stream_calls():
    """No false alarm: an episode ends before the second of two branches was called in this step."""

    class Exit(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.one, self.two = ones(), leaky(), leaky()

        def forward(self, x, stop=99):
            one, two = self.one.reset_mem(), self.two.reset_mem()
            for t, step in enumerate(x):
                _, one = self.one(self.fc(step), one)
                if t == stop:
                    return one
                _, two = self.two(self.fc(2 * step), two)
            return one

    net = Exit()
    dk.wrap_(net, {"fc": late(3)}, example=spikes(6))
    with currents(net.fc) as seen:
        net(spikes(8, 0), 5)
    assert arrivals(seen) == {6: 1.0, 7: 2.0}


def test_a_readout_membrane_fed_back_as_observation():
    """No false alarm: what comes in is data, though it is the object that a neuron left."""
    net = Loop()
    dk.wrap_(net, {"fc": late(2)}, example=spikes(4, batch=1))
    first = net(spikes(4, 0))[-1]
    with currents(net.fc) as seen:
        net(torch.stack([first.detach(), *torch.zeros(3, 1, 1)]))
        net(first.detach().expand(4, 1, 1))
        net(first.expand(1, 1, 1).detach())
    assert len(seen) == 9
    net(first[None])  # the very tensor, once more


def test_lift_in_a_sequential_state_fed_in_pieces():
    norse = pytest.importorskip("norse.torch", reason="wraps norse models")
    net = norse.SequentialState(norse.Lift(ones()), norse.LI())
    dk.wrap_(net, {"0.lifted_module": late(3)}, example=spikes(12))
    x = spikes(12, 3)
    with torch.no_grad():
        want, _ = net(x)
        with exact_or_refused():
            state, out = None, []
            for piece in x.split(4):
                y, state = net(piece, state)
                out.append(y)
            torch.testing.assert_close(torch.cat(out), want)
        with exact_or_refused():
            again, _ = net(x)
            torch.testing.assert_close(again, want)


def test_norse_chunks_with_a_state_that_the_caller_keeps():
    norse = pytest.importorskip("norse.torch", reason="wraps norse models")

    class Chunked(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.li = ones(), norse.LICell()

        def forward(self, x, state=None):
            out = []
            for step in x:
                y, state = self.li(self.fc(step), state)
                out.append(y)
            return torch.stack(out), state

    net, x = Chunked(), spikes(12, 3)
    dk.wrap_(net, {"fc": late(3)}, example=x)
    with torch.no_grad():
        want, _ = net(x)
        with exact_or_refused():
            state, out = None, []
            for piece in x.split(4):
                y, state = net(piece, state)
                out.append(y)
            torch.testing.assert_close(torch.cat(out), want)


def test_chunks_of_one_neuron_with_a_recurrent_connection():
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.lif = snn.RLeaky(0.9, linear_features=1, threshold=0.5, init_hidden=True)
            nn.init.ones_(self.lif.recurrent.weight), nn.init.zeros_(self.lif.recurrent.bias)

        def forward(self, x):
            return torch.stack([self.lif(step) for step in x])

    def run(length):
        net = Recurrent()
        dk.wrap_(net, {"lif.recurrent": late(3)}, example=spikes(4))
        net.lif.reset_mem()
        with torch.no_grad():
            return torch.cat([net(chunk) for chunk in spikes(12, 2).split(length)])

    with exact_or_refused():
        torch.testing.assert_close(run(4), run(12))


@pytest.mark.parametrize("reset", ["auto", "manual"])
def test_a_model_that_is_converted_in_the_middle_of_a_stream(reset):
    net = torch.nn.Sequential(rigs.ones(), rigs.leaky(init_hidden=True))
    dk.wrap_(net, {"0": dk.At(rigs.late(3), reset=reset)}, example=torch.zeros(1, 1))
    net[1].reset_mem()
    net(torch.ones(1, 1))
    net.double()
    with pytest.raises(dk.HistoryError, match="under way"):
        net(torch.zeros(1, 1, dtype=torch.float64))


@pytest.mark.parametrize("reset", ["reset_mem", "dk.reset", "rows"])
def test_a_reset_between_a_connection_and_its_neuron(reset):
    """What the connection was given before the reset is gone, the spike of that very step included."""
    act = {
        "reset_mem": lambda net: net.lif.reset_mem(),
        "dk.reset": dk.reset,
        "rows": lambda net: dk.reset(net, rows=torch.tensor([True])),
    }[reset]

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.lif = rigs.ones(), rigs.leaky(init_hidden=True)

        def forward(self, x, now=False):
            current = self.fc(x)
            if now:
                act(self)
            return self.lif(current)

    net = dk.wrap_(Net(), {"fc": rigs.late(3)}, example=torch.zeros(1, 1))
    net.lif.reset_mem()
    x = rigs.spikes(10, (0, 0, 0), (2, 0, 0), (4, 0, 0))
    with rigs.currents(net.fc) as seen:
        for t, step in enumerate(x):
            net(step, t == 2)
    assert rigs.arrivals(seen) == {7: 1.0}


def test_delays_of_a_neuron_without_parameters_have_the_dtype_of_the_given_weight():
    neuron = rigs.snn.Leaky(0.9, init_hidden=True)
    rule = dk.Recurrent(dk.FreeDelay("axonal", max_delay=3), weight=torch.zeros(2, 2, dtype=torch.float64))
    dk.wrap_(neuron, {"": rule}, example=torch.zeros(1, 2, dtype=torch.float64))
    assert {p.dtype for p in neuron.parameters()} == {torch.float64}


EDITS = {
    "as it is": lambda v: v,
    "a clone": lambda v: v.detach().clone(),
    "scaled": lambda v: v * 0.9,
    "noised": lambda v: v + 0.01,
    "rows swapped": lambda v: v.flip(0),
    "a row begins anew": lambda v: v * torch.tensor([[1.0], [0.0]]),
}


class Handed(nn.Module):
    """A loop inside that goes on from the membrane it is given."""

    def __init__(self):
        super().__init__()
        self.fc, self.lif = ones(), leaky(0.5)

    def forward(self, x, mem=None):
        mem = x.new_zeros(x.shape[1:]) if mem is None else mem
        for step in x:
            _, mem = self.lif(self.fc(step), mem)
        return mem


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("edit", EDITS)
def test_an_edited_state_that_goes_on_from_the_last_call(edit, fused):
    """The example had one call a sequence, so delays begin anew; a spike of step 4, delay 3, would be lost."""
    net, x = dk.wrap_(Handed(), {"fc": late(3)}, example=torch.zeros(6, 2, 1)), spikes(10, (0, 0), (4, 0), batch=2)
    run = dk.fused(net, example=torch.zeros(6, 2, 1)) if fused else net
    with torch.no_grad():
        state = EDITS[edit](run(x[:6]))
        for _ in (0, 1):  # also when it is tried again
            with pytest.raises(dk.HistoryError, match="begin anew with every call"):
                run(x[6:], state)
        dk.reset(net)
        run(x[6:], state)


def test_states_of_their_own_that_sequences_begin_with():
    """The same one every time, be it for a batch of another size; at rest; any where nothing was under way."""
    net, x = dk.wrap_(Handed(), {"fc": late(3)}, example=torch.zeros(6, 2, 1)), spikes(6, (4, 0), batch=2)
    for rows in (2, 2, 1):
        net(x[:, :rows], torch.full((rows, 1), 0.3))
    net(spikes(6, (0, 0), batch=2))
    net(x, torch.rand(2, 1))
