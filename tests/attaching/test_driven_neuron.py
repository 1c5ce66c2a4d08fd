"""The neuron behind a lingering current: its leak is read as it is, and neurons that do not fit are named."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch

from delaykit import ConfigError
from delaykit.attaching.adapter import Neuron
from delaykit.attaching.neuron.driven_neuron import DrivenNeuron

snn = pytest.importorskip("snntorch", reason="needs snnTorch, the extra `snntorch`")


def behind(*neurons: torch.nn.Module, post: int = 3) -> DrivenNeuron:
    from delaykit.adapters.snntorch import SnnTorchAdapter

    heard = [Neuron(f"lif{k}", neuron, SnnTorchAdapter()) for k, neuron in enumerate(neurons)]
    return DrivenNeuron("fc", heard, post)


def test_the_leak_is_the_neurons_as_it_is_now() -> None:
    lif = snn.Leaky(beta=0.5)
    driven = behind(lif)
    assert driven.leak().tolist() == [[0.5]]
    lif.beta.fill_(0.75)
    assert driven.leak().tolist() == [[0.75]]


def test_a_copy_reads_its_own_neuron_and_a_pickle_keeps_the_number() -> None:
    driven = behind(snn.Leaky(beta=torch.tensor([0.5, 0.6, 0.7])))
    twin, kept = copy.deepcopy(driven), pickle.loads(pickle.dumps(driven))
    driven.module.beta.zero_()
    assert twin.leak().flatten().tolist() == kept.leak().flatten().tolist() == pytest.approx([0.5, 0.6, 0.7])
    kept.find_({"lif0": driven.module})
    assert not kept.leak().any()


def test_neurons_of_other_leaks_or_sizes_are_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="'lif0' and 'lif1'"):
        behind(snn.Leaky(beta=0.5), snn.Leaky(beta=0.6))
    with pytest.raises(ConfigError, match="2 leaks in Leaky 'lif0'"):
        behind(snn.Leaky(beta=torch.tensor([0.5, 0.6])))
    with pytest.raises(ConfigError, match="Alpha 'lif0' behind it"):
        behind(snn.Alpha(alpha=0.9, beta=0.8))
