"""Copies of snnTorch models: the library's reset finds them, and nothing else holds them."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from torch import nn

import delaykit as dk

snn = pytest.importorskip("snntorch", reason="wraps snnTorch models")
from snntorch import utils  # noqa: E402

RULES = {"0": dk.FreeDelay("axonal", init=2.0)}


def copied(net):
    return dk.wrap(net, RULES, example=torch.zeros(1, 3))


def listed():
    """Count the neurons in the library's list: places of those that are no more hold None until the next is listed."""
    return sum(neuron is not None for neuron in snn.SpikingNeuron.instances)


def test_copies_of_a_model_are_reset_and_do_not_outlive_their_owner():
    net = nn.Sequential(nn.Linear(3, 2), snn.Leaky(beta=0.9, init_hidden=True))
    gc.collect()  # of other tests
    before = listed()
    kept = copied(net)
    gone = [weakref.ref(copied(net)[1]) for _ in range(5)]
    gc.collect()
    assert [ref() for ref in gone] == [None] * 5
    kept[1].mem = torch.ones(1, 2)
    utils.reset(kept)  # with places of copies that are no more in the list
    assert not kept[1].mem.any()
    again = copied(net)
    assert listed() == len(snn.SpikingNeuron.instances) == before + 2 and again is not None
    utils.reset(net)
