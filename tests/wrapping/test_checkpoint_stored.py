"""Checkpoints written by the first versions of both formats load, and compute what they did then."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

import delaykit as dk
from delaykit.testing.stored_checkpoints import check_stored_run, stored_runs

RUNS = stored_runs(Path(__file__).parents[1] / "fixtures" / "checkpoints")


@pytest.mark.parametrize("path", RUNS, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_an_old_checkpoint_computes_what_it_did(path):
    library = path.name.partition("-")[0]
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed")
    net = check_stored_run(path)
    assert all(float(delay.detach().max()) > 0 for delay in dk.status(net).delays.values())


def test_every_component_granularity_and_library_is_stored():
    labels = {path.name.partition(".")[2] for path in RUNS}
    assert labels == {"free-layer", "free-axonal", "free-dendritic", "free-synaptic", "recurrent", "time-constants"}
    assert {path.name.partition("-")[0] for path in RUNS} == {"snntorch", "norse"}
    assert {path.parent.name for path in RUNS} == {"checkpoints", "format_2"}
