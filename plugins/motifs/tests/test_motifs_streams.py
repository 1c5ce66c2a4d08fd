"""Streams of motifs that go on for thousands of steps, pieces or sequences: constant memory, constant work."""

from __future__ import annotations

import pytest

from delaykit.testing.faults import how_many
from delaykit.testing.faults.streams import check_pieces, check_sequences, check_stream
from delaykit_motifs import Motif

pytest.importorskip("norse.torch", reason="streams Norse cells")
pytest.importorskip("snntorch", reason="streams snnTorch neurons")

MANY = how_many(300, 5000)
CONFIGS = {"motif": Motif(7)}


@pytest.mark.usefixtures("young_heap")
@pytest.mark.slow
@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("check", [check_stream, check_pieces, check_sequences])
def test_a_stream_without_end_costs_the_same_at_its_end(config, check):
    check(CONFIGS[config], MANY)
