"""A layer that is called several times within a step of one neuron: each of its calls has a line of its own."""

from __future__ import annotations

import pytest
import torch
from rigs import arrivals, currents, exact_or_refused, late, leaky, ones, spikes
from torch import nn

import delaykit as dk


class Twice(nn.Module):
    """The sum of a layer's answers to two inputs, in a loop of steps."""

    def __init__(self):
        super().__init__()
        self.fc, self.lif = ones(), leaky()

    def forward(self, x, y, skip=()):
        mem, out = self.lif.reset_mem(), []
        for t in range(len(x)):
            drive = self.fc(x[t]) if t in skip else self.fc(x[t]) + self.fc(y[t])
            _, mem = self.lif(drive, mem)
            out.append(drive)
        return out


@pytest.mark.parametrize("kind", ["layer", "axonal", "dendritic", "synaptic"])
def test_two_inputs_in_every_step(kind):
    """Spikes at 1 and at 2, delay 3: currents at 4 and 5, as of the sum of the inputs."""
    net = dk.wrap_(Twice(), {"fc": late(3, kind)}, example=(spikes(6), spikes(6)))
    for _ in (0, 1):
        assert arrivals([v.detach() for v in net(spikes(8, 1), spikes(8, 2))]) == {4: 1.0, 5: 1.0}


def test_one_of_them_left_out():
    net = dk.wrap_(Twice(), {"fc": late(3)}, example=(spikes(6), spikes(6)))
    with exact_or_refused():
        out = net(spikes(8, 1), spikes(8), skip=(3,))
        assert arrivals([v.detach() for v in out]) == {4: 1.0}


def test_no_fixed_number_in_the_example():
    net = Twice()
    with pytest.raises(dk.WrapError, match="1 to 2 times within a step"):
        dk.wrap_(net, {"fc": late(3)}, example=lambda: net(spikes(6), spikes(6), skip=(3,)))


class Iterated(nn.Module):
    """A layer on its own answer, once a call of the model; the loop is outside."""

    def __init__(self):
        super().__init__()
        self.fc, self.lif = ones(), leaky(init_hidden=True, output=True)

    def forward(self, x):
        return self.lif(self.fc(self.fc(x)))[1]


def test_a_layer_on_its_own_answer():
    """Delay 2, twice: a spike of step 0 arrives at 4."""
    net = dk.wrap_(Iterated(), {"fc": late(2)}, example=torch.zeros(1, 1))
    net.lif.reset_mem()
    with currents(net.fc) as seen:
        for step in spikes(8, 0):
            net(step)
    assert arrivals(seen[1::2]) == {4: 1.0} and arrivals(seen[0::2]) == {2: 1.0}


class SummedUp(nn.Module):
    """A neuron that steps once for all steps of another one: there a call of the layer is a step."""

    def __init__(self):
        super().__init__()
        self.first, self.lif, self.fc, self.last = ones(), leaky(0.0), ones(), leaky()

    def forward(self, x):
        mem, total = self.lif.reset_mem(), 0.0
        for step in x:
            _, mem = self.lif(self.first(step), mem)
            total = total + self.fc(mem)
        return self.last(total, self.last.reset_mem())[1]


def test_a_sum_over_the_steps_of_another_neuron():
    net = SummedUp()
    dk.wrap_(net, {"fc": late(3)}, example=spikes(6))
    with currents(net.fc) as seen:
        net(spikes(6, 1))
    assert arrivals(seen) == {4: 1.0}
