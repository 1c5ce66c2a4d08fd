"""Checkpoints written by an earlier version load, and compute what they did then."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from delaykit.testing.stored_checkpoints import check_stored_run, stored_runs

RUNS = stored_runs(Path(__file__).parent / "checkpoints")


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.name)
def test_an_old_checkpoint_computes_what_it_did(path):
    library = path.name.partition("-")[0]
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed")
    check_stored_run(path)


def test_there_are_stored_checkpoints():
    assert len(RUNS) >= 2
