"""Which adapters are asked, and that one written for another interface is refused."""

from __future__ import annotations

import pytest
from torch import nn

import delaykit as dk
from delaykit.adapters import ADAPTER_API, Neuron, NeuronAdapter
from delaykit.errors import PluginError
from delaykit.planning.survey import adapter_on_trial, adapters


class Mine(NeuronAdapter):
    name = "mine"
    api = ADAPTER_API

    def find(self, path, module):
        return [], Neuron(path, module, self) if isinstance(module, nn.Tanh) else None


def test_an_adapter_on_trial_is_asked_first_and_inside_the_block_only():
    with adapter_on_trial(Mine):
        assert isinstance(adapters()[0], Mine)
    assert not any(isinstance(adapter, Mine) for adapter in adapters())


def test_the_plain_adapter_is_asked_last():
    assert adapters()[-1].name == "torch"


def test_an_adapter_replaces_the_registered_one_of_its_name():
    norse = type("Other", (Mine,), {"name": "norse"})
    with adapter_on_trial(norse):
        assert [type(a) for a in adapters() if a.name == "norse"] == [norse]


@pytest.mark.parametrize(("version", "fix"), [(ADAPTER_API - 1, "upgrade its plugin"), (None, "upgrade its plugin"),
                                              (True, "upgrade its plugin"), (1.0, "upgrade its plugin"),
                                              (ADAPTER_API + 1, "upgrade delaykit")])  # fmt: skip
def test_another_interface_version_is_refused(version, fix):
    members = {} if version is None else {"api": version}
    bases = (NeuronAdapter,)
    other = type("Other", bases, {"name": "other", "find": Mine.find, **members})
    with adapter_on_trial(other), pytest.raises(PluginError, match=fix) as raised:
        dk.plan(nn.Sequential(nn.Linear(2, 2)), {"0": dk.FreeDelay()})
    assert "adapter 'other'" in str(raised.value)


@pytest.mark.parametrize("name", [3, "", " ", None, b"other"])
def test_an_adapter_without_a_name_is_refused(name):
    members = {} if name is None else {"name": name}
    other = type("Other", (NeuronAdapter,), {"api": ADAPTER_API, "find": Mine.find, **members})
    with adapter_on_trial(other), pytest.raises(PluginError, match=r"found Other\.name = .*; expected the name of"):
        dk.plan(nn.Sequential(nn.Linear(2, 2)), {"0": dk.FreeDelay()})
