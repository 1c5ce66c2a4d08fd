"""Checkpoints of a model on two processes, or sent to another: one file, whole tensors, and back to the bit."""

from __future__ import annotations

import pytest

import delaykit as dk
from delaykit.testing.faults.round_trips import ACCELERATE, KINDS, check_round_trip

CASES = [("axonal", kind) for kind in KINDS] + [("synaptic", "fully_shard")]  # which alone looks at shapes


@pytest.mark.slow
@pytest.mark.parametrize(("granularity", "kind"), CASES)
def test_several_processes_save_what_one_process_learns(tmp_path, kind, granularity):
    check_round_trip(dk.FreeDelay(granularity, max_delay=3, init=1.5), tmp_path, kind)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ACCELERATE)
def test_accelerate_saves_what_one_process_learns(tmp_path, kind):
    pytest.importorskip("accelerate", reason="trains with accelerate")
    check_round_trip(dk.FreeDelay("axonal", max_delay=3, init=1.5), tmp_path, kind)
