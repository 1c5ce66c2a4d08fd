"""The caller's tensors are his own: a buffer that he writes over after a step changes nothing that came before."""

from __future__ import annotations

import pytest
import torch
from rigs import arrivals, currents, late, leaky, looped, ones, outer, spikes
from torch import nn

import delaykit as dk

X = spikes(8, 1, batch=2)


@pytest.mark.parametrize("kind", ["layer", "axonal", "dendritic", "synaptic"])
@pytest.mark.parametrize("gradients", [True, False])
def test_an_input_buffer_that_is_used_again(kind, gradients):
    net, buffer = outer(3, kind), torch.zeros(2, 1)
    net[1].reset_mem()
    with torch.set_grad_enabled(gradients), currents(net[0]) as seen:
        for step in X:
            buffer.copy_(step)
            net(buffer)
    assert arrivals(seen) == {4: 1.0}


@pytest.mark.parametrize("kind", ["layer", "axonal", "dendritic", "synaptic"])
@pytest.mark.parametrize("d", [0, 2])
def test_an_output_that_is_changed_in_place(kind, d):
    """What the layer returned belongs to the caller."""
    net = looped(d, kind)
    with torch.no_grad():
        net.fc.register_forward_hook(lambda _, __, output: output.mul_(1.0).add_(5.0).sub_(5.0))
        with currents(net.fc) as seen:
            net(X)
    assert arrivals(seen) == {1 + d: 1.0}


def test_identity_delays_keep_nothing_of_the_buffer():
    net, buffer = outer(0), torch.zeros(2, 1)
    net[1].reset_mem()
    with torch.no_grad(), currents(net[0]) as seen:
        for step in X:
            buffer.copy_(step)
            net(buffer)
            with torch.no_grad():
                net[0].dk.delay.delay.fill_(0.0)
    assert arrivals(seen) == {1: 1.0}


def test_a_sequence_state_keeps_its_own_inputs():
    norse = pytest.importorskip("norse.torch", reason="wraps norse models")
    net = norse.SequentialState(ones(), norse.LI())
    dk.wrap_(net, {"0": late(3)}, example=spikes(6))
    x = spikes(6, 4)
    with torch.no_grad():
        want, _ = net(x)
        buffer, state, out = torch.zeros(3, 1, 1), None, []
        for piece in x.split(3):
            buffer.copy_(piece)
            y, state = net(buffer, state)
            out.append(y.clone())
        torch.testing.assert_close(torch.cat(out), want)


def test_a_loop_of_delaykits_own_keeps_its_own_spikes():
    """``dk.Recurrent``: the output that comes back is the neuron's, not what the caller made of it."""
    lif = leaky(init_hidden=True)
    lif.threshold.fill_(0.5)
    net = nn.Sequential(ones(), lif)
    rule = dk.Recurrent(late(1), weight=torch.ones(1, 1))
    dk.wrap_(net, {"1": rule}, example=torch.zeros(1, 1))

    def run(scribble):
        net[1].reset_mem()
        out = []
        with torch.no_grad():
            for step in spikes(6, 0):
                spk = net(step)
                out.append((net[1].mem.clone(), spk.clone()))
                if scribble:
                    spk.zero_()
        return out

    torch.testing.assert_close(run(True), run(False))
