"""The mixin that the how-to page writes gives spikes the gradients of continuous time."""

from __future__ import annotations

import math

import pulse
import pytest
import torch
from torch import nn

import delaykit as dk
from delaykit.testing import adapter_on_trial

snn = pytest.importorskip("snntorch", reason="its Synaptic has the same equations in continuous time")
page = pulse.load()
UNIT = 30  # steps


def net_of(neuron) -> nn.Sequential:
    net = nn.Sequential(nn.Linear(2, 1, bias=False), neuron(), nn.Linear(1, 1, bias=False), neuron())
    net[0].weight.data = torch.tensor([[1.6, 1.5]]) * (0.62 / UNIT)
    net[2].weight.data = torch.tensor([[0.3 / UNIT]])
    return net


def gradient(net: nn.Sequential, clear, membrane):
    """Return the spikes of the first neuron and the gradient of its two delays, by the membrane behind all of it."""
    spikes = torch.zeros(14 * UNIT, 1, 2)
    spikes[UNIT // 2, 0, 0] = spikes[3 * UNIT // 2, 0, 1] = spikes[4 * UNIT, 0, 0] = 1.0

    def run():
        clear(net[1]), clear(net[3])
        fired = []
        for x in spikes:
            fired.append(net[1](net[0](x)))
            net[3](net[2](fired[-1]))
        return torch.stack(fired)

    exact = {"max_delay": 5 * UNIT, "estimator": "exact"}
    first, second = dk.FreeDelay("synaptic", init=[[24.0, 38.0]], **exact), dk.FreeDelay("layer", init=8.0, **exact)
    with adapter_on_trial(page.SlowAdapter):
        dk.wrap_(net, {"0": first, "2": second}, example=run)
        fired = run()
        membrane(net[3]).sum().backward()
    return int(fired.sum()), net[0].dk.delay.delay.grad


def test_the_mixin_of_the_page_gives_the_gradients_that_snntorch_gets() -> None:
    """One library subtracts the threshold within the step and the other in the next: they differ by a step's worth."""
    decays = {"alpha": math.exp(-1 / (3 * UNIT)), "beta": math.exp(-1 / (5 * UNIT))}
    ours = gradient(net_of(lambda: page.Slow(**decays)), lambda n: n.clear(), lambda n: n.u)
    library = lambda: snn.Synaptic(**decays, init_hidden=True, reset_mechanism="subtract")  # noqa: E731
    theirs = gradient(net_of(library), lambda n: n.reset_mem(), lambda n: n.mem)
    assert ours[0] == theirs[0] == 6
    torch.testing.assert_close(ours[1], theirs[1], rtol=0.0, atol=0.03 * float(theirs[1].abs().max()))
