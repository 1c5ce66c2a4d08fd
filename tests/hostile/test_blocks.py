"""Rounded, or run bare, in the middle of a sequence: under every policy a line is emptied by its own events alone."""

from __future__ import annotations

import contextlib

import pytest
import torch
from rigs import arrivals, currents, late, leaky, ones, spikes
from torch import nn

import delaykit as dk

norse = pytest.importorskip("norse.torch", reason="wraps norse models")


def snntorch(reset):
    net = nn.Sequential(ones(), leaky(init_hidden=True))
    dk.wrap_(net, {"0": dk.At(late(3), reset=reset)}, example=torch.zeros(1, 1))
    net[1].reset_mem(), dk.reset(net)
    return net, lambda x, state: (net(x), None)


def alone(layer):
    net = nn.Sequential(ones())
    dk.wrap_(net, {"0": dk.At(late(3), reset="manual")}, example=torch.zeros(1, 1))
    return net, lambda x, state: (net(x), None)


def chain(neuron):
    net = norse.SequentialState(ones(), neuron)
    return dk.wrap_(net, {"0": late(3)}, example=torch.zeros(1, 1)), net


NETS = {
    "follow": lambda: snntorch("auto"),
    "manual": lambda: snntorch("manual"),
    "manual without a neuron": lambda: alone(ones()),
    "carried": lambda: chain(norse.LICell()),
}


@contextlib.contextmanager
def finalized(net):
    dk.finalize_(net)
    yield


BLOCKS = {"discretized": dk.discretized, "finalize_": finalized}


@pytest.mark.parametrize("inside", [0, 1, 6], ids=["no step inside", "a step inside", "to the end"])
@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("policy", NETS)
@pytest.mark.parametrize("gradients", [False, True])
def test_rounding_leaves_spikes_under_way(policy, block, inside, gradients):
    """A spike of step 0, delay 3: a current at step 3, whatever is rounded from step 2 on."""
    net, step = NETS[policy]()
    state, x = None, spikes(6, 0)
    with torch.set_grad_enabled(gradients), currents(net[0]) as seen, contextlib.ExitStack() as blocks:
        for t in range(6):
            if t == 2:
                blocks.enter_context(BLOCKS[block](net))
            if t == 2 + inside:
                blocks.close()
            _, state = step(x[t], state)
    assert arrivals(seen) == {3: 1.0}


def test_real_delays_count_again_behind_the_block():
    """Delay 3.4: 3 inside; what is under way meets 3.4 behind it."""
    net = nn.Sequential(ones())
    dk.wrap_(net, {"0": dk.At(dk.FreeDelay("axonal", max_delay=5, init=3.4), reset="manual")})
    with torch.no_grad(), currents(net[0]) as seen:
        with dk.discretized(net):
            net(spikes(1, 0)[0]), net(spikes(1)[0])
        for x in spikes(4):
            net(x)
    assert arrivals(seen) == {3: pytest.approx(0.6), 4: pytest.approx(0.4)}


@pytest.mark.parametrize("steps", [1, 2], ids=["no bare step", "a bare step"])
@pytest.mark.parametrize("policy", ["follow", "manual", "manual without a neuron"])
def test_nothing_goes_on_behind_a_bare_block(policy, steps):
    net, step = NETS[policy]()
    with torch.no_grad():
        step(spikes(1, 0)[0], None)
        with dk.disabled(net):
            for x in spikes(steps - 1):
                step(x, None)
        with pytest.raises(dk.HistoryError, match="disabled"):
            step(spikes(1)[0], None)
        dk.reset(net)
        step(spikes(1)[0], None)


def cell(slot="input"):
    net = norse.LIFRecurrentCell(1, 1, norse.LIFParameters(v_th=torch.tensor(0.01)))
    with torch.no_grad():
        net.input_weights.fill_(1.0), net.recurrent_weights.zero_()
    return dk.wrap_(net, {slot: late(3)}, example=torch.zeros(1, 1)), net


def looped():
    net = norse.LIFCell(norse.LIFParameters(v_th=torch.tensor(0.01)))
    return dk.wrap_(net, {"": dk.Recurrent(late(3), weight=torch.ones(1, 1))}, example=torch.zeros(1, 1)), net


def pieces():
    net = norse.SequentialState(ones(), norse.LI())
    dk.wrap_(net, {"0": late(3)}, example=torch.zeros(4, 1, 1))
    return net, lambda x, state: net(x[None], state)


CARRIED = {"chain": lambda: chain(norse.LICell()), "cell": cell, "pieces": pieces, "loop": looped}


@pytest.mark.parametrize("kind", CARRIED)
def test_a_carried_sequence_does_not_go_on_behind_bare_steps(kind):
    """The line of before the block would have stood still meanwhile."""
    net, step = CARRIED[kind]()
    with torch.no_grad():
        _, state = step(5 * spikes(1, 0)[0], None)
        _, state = step(spikes(1)[0], state)
        with dk.disabled(net):
            for x in spikes(2):
                _, state = step(x, state)
        with pytest.raises(dk.HistoryError, match=r"without delays \(dk.disabled\)"):
            step(spikes(1)[0], state)
        step(spikes(1)[0], None)


@pytest.mark.parametrize("kind", CARRIED)
def test_a_carried_sequence_with_nothing_under_way_goes_on_behind_bare_steps(kind):
    """What is bare inside is what it was without delaykit; behind the block delays begin with an empty line."""
    net, step = CARRIED[kind]()
    with torch.no_grad():
        _, state = step(spikes(1)[0], None)
        with dk.disabled(net):
            for x in (5 * spikes(1, 0)[0], spikes(1)[0]):
                _, state = step(x, state)
        for _ in range(2):
            _, state = step(spikes(1)[0], state)
        assert torch.isfinite(step(spikes(1)[0], state)[0]).all()


def test_a_state_of_before_the_block_goes_on_if_no_step_inside_was_given_it():
    net, step = cell()
    seen = []
    with torch.no_grad():
        state = None
        for t, x in enumerate(spikes(6, 0)):
            if t == 2:
                with dk.disabled(net):
                    step(x, None)
            _, state = step(x, state)
            seen.append(round(float(state.i), 3))
    assert seen[:4] == [0.0, 0.0, 0.0, 0.8]  # Norse lets a current decay at once
