"""What makes a step: the neuron's, not the call. Layers that are skipped, called every second step, or once a call."""

from __future__ import annotations

import pytest
import torch
from rigs import Loop, arrivals, currents, exact_or_refused, late, leaky, looped, ones, snn, spikes
from snntorch import utils
from torch import nn

import delaykit as dk


class Sometimes(nn.Module):
    """``fc`` is called in some steps only; in the others the neuron hears zeros."""

    def __init__(self):
        super().__init__()
        self.fc, self.lif = ones(), leaky()

    def forward(self, x, when=lambda t, step: True):
        mem, drives = self.lif.reset_mem(), []
        for t, step in enumerate(x):
            drive = self.fc(step) if when(t, step) else torch.zeros(x.shape[1], 1)
            _, mem = self.lif(drive, mem)
            drives.append(drive.detach().clone())
        return drives


def sometimes(example=None):
    net = Sometimes()
    return dk.wrap_(net, {"fc": late(3)}, example=example or spikes(6, *range(6)))


def test_a_layer_skipped_where_its_input_is_silent():
    """``fc(x) if x.any() else zeros``: the spike of step 1 arrives at step 4, or it is refused with both readings."""
    net = sometimes()
    with exact_or_refused():
        assert arrivals(net(spikes(8, 1), lambda t, step: bool(step.any()))) == {4: 1.0}
    with pytest.raises(dk.HistoryError, match="step"):  # what must never happen: two spikes, clocks drift apart
        net(spikes(8, 1, 5), lambda t, step: bool(step.any()))


def test_a_layer_skipped_while_nothing_is_under_way():
    """No spike is in the line: leaving it out loses nothing, and later delays count the neuron's steps."""
    net = sometimes()
    with exact_or_refused():
        assert arrivals(net(spikes(10, 5), lambda t, step: t >= 5)) == {8: 1.0}


def test_a_layer_run_every_second_step():
    net = sometimes()
    with exact_or_refused():
        assert arrivals(net(spikes(10, 0), lambda t, step: t % 2 == 0)) == {3: 1.0}


def test_an_example_that_skips_steps():
    """The plan sees it: one reading is calls, the other is steps; it asks."""
    net = Sometimes()
    plan = dk.plan(net, {"fc": late(3)}, example=(spikes(6), lambda t, step: t % 2 == 0))
    try:
        dk.wrap_(net, plan)
    except dk.WrapError as error:
        assert "fc" in str(error) and "step" in str(error)
    else:
        with exact_or_refused():
            assert arrivals(net(spikes(10, 0), lambda t, step: t % 2 == 0)) == {3: 1.0}


class Nested(nn.Module):
    """A slow outer loop and a fast inner one; the layer before the inner neuron is called once an outer step."""

    def __init__(self):
        super().__init__()
        self.fc, self.lif, self.head, self.out = ones(), leaky(), ones(), leaky()

    def forward(self, x, inner=3):
        mem, mem2 = self.lif.reset_mem(), self.out.reset_mem()
        for step in x:
            drive = self.fc(step)
            for _ in range(inner):
                spk, mem = self.lif(drive, mem)
            _, mem2 = self.out(self.head(mem), mem2)
        return mem2


def test_a_layer_before_a_nested_inner_loop():
    """One call of fc is heard by three steps of its neuron: refused, naming what was found."""
    net = Nested()
    with pytest.raises(dk.WrapError, match="fc"):
        dk.wrap_(net, {"fc": late(2)}, example=spikes(5))


def test_a_nested_inner_loop_of_another_length():
    net = Nested()
    dk.wrap_(net, {"head": late(2)}, example=spikes(5))
    with currents(net.head) as seen:
        net(spikes(5, 0), 1)
    assert arrivals(seen) == {2: 1.0, 3: 0.9, 4: 0.81}


def test_an_inner_loop_that_the_example_did_not_have():
    """Example with one inner step, run with three: the neuron steps three times a call of fc."""
    net = Nested()
    dk.wrap_(net, {"fc": late(2)}, example=(spikes(5), 1))
    with exact_or_refused(), currents(net.fc) as seen:
        net(spikes(5, 0), 3)
        assert arrivals(seen) == {}, "2 steps of the neuron are less than one call of fc: there is no right answer"


def test_a_whole_net_call_of_another_length():
    """The unit of a delay is a step, whatever the length of the example."""
    for length in (1, 2, 6):
        net = Loop()
        try:
            dk.wrap_(net, {"fc": late(3)}, example=spikes(length))
        except dk.WrapError:
            continue
        with exact_or_refused(), currents(net.fc) as seen:
            net(spikes(8, 1))
            assert arrivals(seen) == {4: 1.0}, f"example of {length} steps"


class Encoder(nn.Module):
    """A neuron that steps once a call, before a loop over another one."""

    def __init__(self):
        super().__init__()
        self.enc, self.first = ones(), leaky()
        self.fc, self.lif = ones(), leaky()

    def forward(self, image, steps=6):
        _, drive = self.first(self.enc(image), self.first.reset_mem())
        mem = self.lif.reset_mem()
        for _ in range(steps):
            _, mem = self.lif(self.fc(drive), mem)
        return mem


def test_an_encoder_whose_neuron_steps_once_a_call_is_refused():
    net = Encoder()
    with pytest.raises(dk.WrapError, match=r"enc.*outside the time loop"):
        dk.wrap_(net, {"enc": late(1)}, example=torch.ones(2, 1))
    dk.wrap_(net, {"fc": late(1)}, example=torch.ones(2, 1))
    assert float(net(torch.ones(2, 1))[0]) > 0


def test_an_encoder_of_a_norse_net_is_refused():
    norse = pytest.importorskip("norse.torch", reason="wraps norse models")

    class NorseEncoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.enc, self.first, self.fc, self.li = ones(), norse.LICell(), ones(), norse.LICell()

        def forward(self, image, steps=6):
            drive, _ = self.first(self.enc(image))
            state = None
            for _ in range(steps):
                v, state = self.li(self.fc(drive), state)
            return v

    with pytest.raises(dk.WrapError, match=r"enc.*outside the time loop"):
        dk.wrap_(NorseEncoder(), {"enc": late(1)}, example=torch.ones(2, 1))


def test_a_readout_whose_neuron_steps_once_a_call_is_refused():
    """The count of all spikes, through a layer and a neuron that step once."""

    class Readout(Loop):
        def __init__(self):
            super().__init__()
            self.head, self.out = ones(), leaky(init_hidden=True)

        def forward(self, x):
            mem, total = self.lif.reset_mem(), 0.0
            for step in x:
                spk, mem = self.lif(self.fc(step), mem)
                total = total + mem
            return self.out(self.head(total))

    with pytest.raises(dk.WrapError, match=r"head.*outside the time loop"):
        dk.wrap_(Readout(), {"head": late(1)}, example=spikes(6))


class Once(nn.Module):
    """A model for (batch, channel) or (batch, time, channel) whose neuron steps once a call, from rest."""

    def __init__(self, hidden):
        super().__init__()
        self.fc, self.lif = ones(), leaky(init_hidden=hidden)

    def forward(self, x, first=True):
        if not self.lif.init_hidden:
            return self.lif(self.fc(x), self.lif.reset_mem() if first else self.lif.mem)[0]
        if first:
            utils.reset(self)
        return self.lif(self.fc(x))


@pytest.mark.parametrize("shape", [(2, 1), (2, 6, 1)])
@pytest.mark.parametrize("calls", [1, 3])
@pytest.mark.parametrize("hidden", [False, True])
def test_a_neuron_that_steps_once_a_call_from_rest_is_refused(hidden, calls, shape):
    """Any delay of a step would lose all input."""
    net, x = Once(hidden), torch.ones(shape)
    with pytest.raises(dk.WrapError, match=r"fc.*outside the time loop"):
        dk.wrap_(net, {"fc": late(1)}, example=lambda: [net(x) for _ in range(calls)])


@pytest.mark.parametrize("hidden", [False, True])
def test_a_model_that_resets_at_its_first_step_alone_is_followed(hidden):
    net = Once(hidden)
    dk.wrap_(net, {"fc": late(3)}, example=lambda: [net(x, t == 0) for t, x in enumerate(spikes(3))])
    for _ in (0, 1):
        with currents(net.fc) as seen:
            for t, x in enumerate(spikes(8, 1)):
                net(x, t == 0)
        assert arrivals(seen) == {4: 1.0}


def test_a_model_of_one_step_that_edits_its_membrane_is_followed():
    class Clamped(nn.Sequential):
        def forward(self, x):
            if self[1].mem is not None:
                self[1].mem = self[1].mem.clamp(max=9.0)
            return self[1](self[0](x))

    net = Clamped(ones(), leaky(init_hidden=True))
    dk.wrap_(net, {"0": late(3)}, example=torch.zeros(1, 1))
    net[1].reset_mem()
    with currents(net[0]) as seen:
        for x in spikes(8, 1):
            net(x)
    assert arrivals(seen) == {4: 1.0}


def test_norse_layers_skipped():
    norse = pytest.importorskip("norse.torch", reason="wraps norse models")

    class NorseSometimes(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.li = ones(), norse.LICell()

        def forward(self, x, when=lambda t: True):
            state, drives = None, []
            for t, step in enumerate(x):
                drive = self.fc(step) if when(t) else torch.zeros(x.shape[1], 1)
                _, state = self.li(drive, state)
                drives.append(drive.detach().clone())
            return drives

    net = NorseSometimes()
    dk.wrap_(net, {"fc": late(3)}, example=spikes(6))
    for when in (lambda t: t % 2 == 0, lambda t: t in (1, 2, 4), lambda t: t != 4):
        with exact_or_refused():
            assert arrivals(net(spikes(8, 0, 1), when)).get(4) == 1.0 == arrivals(net(spikes(8, 0, 1), when)).get(3)


def test_layers_skipped_in_an_outer_loop():
    """Dynamic depth: the second layer is left out in some steps, in a net that is called step by step."""

    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.lif = ones(), leaky(init_hidden=True, output=True)

        def forward(self, x, call=True):
            drive = self.fc(x) if call else torch.zeros_like(x)
            self.lif(drive)
            return drive

    net = Outer()
    dk.wrap_(net, {"fc": late(3)}, example=torch.zeros(1, 1))
    for skipped in ({1}, {3}, {1, 2}):
        net.lif.reset_mem()
        with exact_or_refused():
            x = spikes(8, 0)
            assert arrivals([net(x[t], t not in skipped).detach() for t in range(8)]) == {3: 1.0}


def test_a_skipped_neuron_step():
    """The layer is called, its neuron not: early exit behind the layer."""

    class Exit(Loop):
        def forward(self, x, skip=()):
            mem, drives = self.lif.reset_mem(), []
            for t, step in enumerate(x):
                drive = self.fc(step)
                drives.append(drive.detach().clone())
                if t not in skip:
                    _, mem = self.lif(drive, mem)
            return drives

    net = Exit()
    dk.wrap_(net, {"fc": late(3)}, example=spikes(6))
    with exact_or_refused():
        assert arrivals(net(spikes(8, 0), {1})) == {4: 1.0}  # three steps of the neuron, one of which comes later
    assert arrivals(net(spikes(8, 0))) == {3: 1.0}


@pytest.mark.parametrize("name", ["Leaky", "Synaptic"])
def test_plain_runs_stay_as_they_were(name):
    net = Loop() if name == "Leaky" else None
    if net is None:
        net = nn.Sequential(ones(), snn.Synaptic(0.5, 0.9, threshold=1e9, init_hidden=True))
        dk.wrap_(net, {"0": late(3)}, example=torch.zeros(1, 1))
        net[1].reset_mem()
        with currents(net[0]) as seen:
            for step in spikes(6, 1):
                net(step)
    else:
        net = looped(3)
        with currents(net.fc) as seen:
            net(spikes(6, 1))
    assert arrivals(seen) == {4: 1.0}
