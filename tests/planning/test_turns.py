"""How calls of a layer and steps of its neuron take turns in the example, and resets that an example makes itself."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import delaykit as dk

snn = pytest.importorskip("snntorch", reason="wraps snntorch models")


class InAdvance(nn.Module):
    def __init__(self, whole=False):
        super().__init__()
        self.fc, self.lif, self.whole = nn.Linear(2, 2), snn.Leaky(0.9), whole

    def forward(self, x):
        mem, out = self.lif.reset_mem(), []
        currents = self.fc(x) if self.whole else [self.fc(step) for step in x]
        for current in currents:
            _, mem = self.lif(current, mem)
            out.append(mem)
        return torch.stack(out)


@pytest.mark.parametrize("options", [{}, {"reset": "root"}, {"reset": "manual"}], ids=str)
def test_currents_computed_before_the_neurons_loop_are_refused_with_advice(options):
    """The example itself, run again, was refused."""
    net = InAdvance()
    with pytest.raises(dk.WrapError, match=r"called several times before neuron 'lif'.*within the neuron's loop"):
        dk.wrap_(net, {"fc": dk.At(dk.FreeDelay("axonal", max_delay=3), **options)}, example=torch.ones(6, 1, 2))


def test_that_advice_works():
    net, x = InAdvance(whole=True), torch.rand(6, 1, 2)
    bare = net(torch.cat([torch.zeros(2, 1, 2), x[:4]]))
    dk.wrap_(net, {"fc": dk.FreeDelay("axonal", max_delay=3, init=2.0)}, example=x)
    torch.testing.assert_close(net(x), bare)


class Outside(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.lif = nn.Linear(2, 2), snn.Leaky(0.9)

    def forward(self, x, mem):
        return self.lif(self.fc(x), mem)


def test_an_example_may_reset_and_detach_the_model_that_it_is_for():
    net = Outside()

    def episode():
        dk.reset(net)
        mem = net.lif.reset_mem()
        for t in range(4):
            if t == 2:
                dk.detach(net)
                dk.reset(net, rows=[True])
            _, mem = net(torch.ones(1, 2), mem)
        return mem

    dk.wrap_(net, {"fc": dk.At(dk.FreeDelay("axonal", max_delay=3, init=1.0), reset="manual")}, example=episode)
    assert bool(episode().any())
    with pytest.raises(dk.ConfigError, match="no wrapped connection"):
        dk.reset(nn.Linear(2, 2))
