"""A net with Motif on two processes, or sent to another: one file, whole tensors, and back to the bit."""

from __future__ import annotations

import pytest

from delaykit.testing.faults.round_trips import check_round_trip
from delaykit_motifs import Motif


@pytest.mark.slow
def test_several_processes_save_what_one_process_learns(tmp_path):  # in shards; the core shows the other ways
    check_round_trip(Motif(3), tmp_path, "fully_shard")
