"""A neuron whose state is carried by another call: the laws hold, a recurrence is refused, nobody else is blamed."""

from __future__ import annotations

from typing import Any, NamedTuple

import pulse
import pytest
import torch
from torch import Tensor, nn

import delaykit as dk
from delaykit.adapters import Neuron, NeuronAdapter
from delaykit.errors import PluginError, WrapError
from delaykit.testing import AdapterConformance, LibraryNet, adapter_on_trial

fire = pulse.load().fire


class Soma(NamedTuple):
    u: Tensor


class StateFirst(nn.Module):
    """``state, spikes = neuron(state, current)``."""

    def forward(self, state: Soma | None, current: Tensor) -> tuple[Soma, Tensor]:
        u = current if state is None else 0.8 * state.u + current
        spikes = fire(u - 1.0)
        return Soma(u - spikes.detach()), spikes


class Loop(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc, self.cell = nn.Linear(6, 8), StateFirst()

    def forward(self, spikes: Tensor) -> Tensor:
        state, out = None, []
        for x in spikes:
            state, spike = self.cell(state, self.fc(x))
            out.append(spike)
        return torch.stack(out)


class Other(NeuronAdapter):
    name = "other"
    api = 1
    why = "its call is not (input, state)"

    def find(self, path, module):
        found = isinstance(module, StateFirst)
        return [], Neuron(path, module, self, recurrent_refusal=self.why) if found else None

    def membrane(self, module, state=None):
        return getattr(state, "u", None)

    def given_state(self, module, args, kwargs):
        return list(args[0] or ())

    def held_state(self, module):
        raise AssertionError("nobody asks a neuron that keeps nothing what it keeps")

    def step(self, neuron, input, state):
        after, spikes = neuron.module(state, input)
        return spikes, after.u, after


class Silent(Other):
    """Forgets to say so."""

    why = ""


class Broken(Other):
    def given_state(self, module, args, kwargs):
        return [module.nothing]


class Net(LibraryNet):
    name, sites, neurons = "state-first", ("fc",), {"cell": "carried"}

    def make(self):
        return Loop()

    def run(self, net, spikes):
        return net(spikes)


class TestOther(AdapterConformance):
    adapter = Other
    nets = (Net(),)


def test_a_recurrence_that_the_adapter_forgot_to_refuse_is_refused() -> None:
    with adapter_on_trial(Silent), pytest.raises(WrapError, match=r"output, state = neuron\(input, state\)"):
        dk.wrap(Loop(), {"cell": dk.Recurrent(dk.FreeDelay())}, torch.rand(4, 1, 6))


def test_an_error_of_an_adapter_is_not_the_examples() -> None:
    with adapter_on_trial(Broken), pytest.raises(PluginError, match=r"Broken.given_state\(\).*StateFirst") as caught:
        dk.wrap(Loop(), {"fc": dk.FreeDelay()}, torch.rand(4, 1, 6))
    assert "bare model runs" not in str(caught.value)


class Hidden(nn.Module):
    """``spikes, hidden = neuron(current, hidden=hidden)``."""

    def forward(self, current: Tensor, hidden: Soma | None = None) -> tuple[Tensor, Soma]:
        u = current if hidden is None else 0.8 * hidden.u + current
        spikes = fire(u - 1.0)
        return spikes, Soma(u - spikes.detach())


class ByKeyword(Loop):
    def __init__(self) -> None:
        super().__init__()
        self.cell = Hidden()

    def forward(self, spikes: Tensor) -> Tensor:
        hidden, out = None, []
        for x in spikes:
            spike, hidden = self.cell(self.fc(x), hidden=hidden)
            out.append(spike)
        return torch.stack(out)


class Keyword(NeuronAdapter):
    name = "keyword"
    api = 1

    def find(self, path, module):
        return [], Neuron(path, module, self) if isinstance(module, Hidden) else None

    def membrane(self, module, state=None):
        return getattr(state, "u", None)


@pytest.mark.parametrize("rules", [{"fc": dk.FreeDelay()}, {"cell": dk.Recurrent(dk.FreeDelay())}])
def test_a_state_by_another_name_is_refused_before_anything_is_touched(rules: Any) -> None:
    net, x = ByKeyword(), torch.rand(4, 1, 6)
    before = net(x)
    with adapter_on_trial(Keyword), pytest.raises(PluginError, match=r"Hidden\(input, hidden\).*call that argument"):
        dk.wrap_(net, rules, x)
    assert type(net.fc) is nn.Linear and type(net.cell) is Hidden and torch.equal(net(x), before)
