"""Streams of motifs that go on for thousands of steps or pieces: constant memory, constant work."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import delaykit as dk
from delaykit.testing.faults import how_many
from delaykit.testing.faults.steady import check_steady
from delaykit_motifs import Motif

norse = pytest.importorskip("norse.torch", reason="streams Norse cells")

MANY = how_many(300, 5000)
X = (torch.rand(4, 2, 6, generator=torch.Generator().manual_seed(0)) < 0.3).float()
CONFIGS = {"motif": Motif(7)}


@pytest.mark.slow
@pytest.mark.parametrize("config", CONFIGS)
def test_a_stream_without_end_after_a_step_with_a_gradient(config):
    net = dk.wrap_(nn.Sequential(nn.Linear(6, 3)), {"0": dk.At(CONFIGS[config], reset="manual")}, example=X[0])
    net(X[0]).sum().backward()
    with torch.no_grad():
        check_steady(lambda: net(X[1]), MANY)


@pytest.mark.slow
@pytest.mark.parametrize("config", CONFIGS)
def test_a_sequence_state_fed_in_pieces(config):
    net = norse.SequentialState(nn.Linear(6, 3), norse.LIFCell())
    dk.wrap_(net, {"0": CONFIGS[config]}, example=lambda: pieces(net, X, None))
    state = [None]

    def piece():
        state[0] = pieces(net, X[:2], state[0])

    with torch.no_grad():
        check_steady(piece, MANY)


def pieces(net, x, state):
    for step in x:
        _, state = net(step, state)
    return state
