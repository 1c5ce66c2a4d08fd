"""Streams and trainings that go on for thousands of steps, pieces or sequences: constant memory, constant work."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import delaykit as dk
from delaykit.testing.faults import how_many
from delaykit.testing.faults.steady_costs import check_steady
from delaykit.testing.faults.streams import check_sequences, check_stream

pytest.importorskip("snntorch", reason="streams snnTorch neurons")
norse = pytest.importorskip("norse.torch", reason="streams Norse cells")

MANY = how_many(400, 5000)
GRAINS = ["layer", "axonal", "dendritic", "synaptic"]
X = (torch.rand(4, 2, 6, generator=torch.Generator().manual_seed(0)) < 0.3).float()


def late(granularity):
    return dk.FreeDelay(granularity, max_delay=7)


@pytest.mark.usefixtures("young_heap")
@pytest.mark.slow
@pytest.mark.parametrize("granularity", GRAINS)
@pytest.mark.parametrize("check", [check_stream, check_sequences])
def test_a_stream_without_end_and_sequence_after_sequence(granularity, check):
    check(late(granularity), MANY)


@pytest.mark.usefixtures("young_heap")
@pytest.mark.slow
@pytest.mark.parametrize("granularity", GRAINS)
def test_a_sequence_state_fed_in_pieces(granularity):
    net = norse.SequentialState(nn.Linear(6, 3), norse.LIFCell(), nn.Linear(3, 2))
    dk.wrap_(net, {"0": late(granularity), "2": late(granularity)}, example=lambda: pieces(net, X, None))
    state = [None]

    def piece():
        state[0] = pieces(net, X[:2], state[0])

    with torch.no_grad():
        check_steady(piece, MANY // 2)


def pieces(net, x, state):
    for step in x:
        _, state = net(step, state)
    return state


@pytest.mark.slow
def test_what_grows_is_found():
    kept = []
    with pytest.raises(AssertionError, match="bytes lived"):
        check_steady(lambda: kept.append(torch.ones(10**4)), 400)
    past = []

    def recompute():
        past.append(torch.ones(2))
        return torch.cat(past).sum()

    with pytest.raises(AssertionError, match="numbers at first"):
        check_steady(recompute, 400)
    things = []
    with pytest.raises(AssertionError, match="objects more lived"):
        check_steady(lambda: things.append([]), 400)
