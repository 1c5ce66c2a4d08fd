"""HetSyn in streams of thousands of steps, pieces or sequences at constant memory and work; on several processes."""

from __future__ import annotations

import pytest

from delaykit.testing.faults import how_many
from delaykit.testing.faults.round_trips import check_round_trip
from delaykit.testing.faults.streams import check_pieces, check_sequences, check_stream
from delaykit_hetsyn import HetSyn

pytest.importorskip("norse.torch", reason="streams Norse cells")
pytest.importorskip("snntorch", reason="streams snnTorch neurons")

MANY = how_many(300, 5000)
CONFIGS = {"synaptic": HetSyn(), "pre": HetSyn("pre"), "post": HetSyn("post"), "groups": HetSyn(groups=4)}


@pytest.mark.usefixtures("young_heap")
@pytest.mark.slow
@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("check", [check_stream, check_pieces, check_sequences])
def test_a_stream_without_end_costs_the_same_at_its_end(config, check):
    check(CONFIGS[config], MANY)


@pytest.mark.slow
def test_several_processes_save_what_one_process_learns(tmp_path):  # in shards; the core shows the other ways
    check_round_trip(HetSyn(tau=5.0, dt_ms=1.0), tmp_path, "fully_shard")
