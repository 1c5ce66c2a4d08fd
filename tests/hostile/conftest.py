"""Let the tests of this folder import ``rigs`` and the fuzzer; keep each test's neurons to itself."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE / "fuzz")]  # pytest's importlib mode adds no folders


@pytest.fixture(autouse=True)
def own_neurons_only():
    """Forget the neurons of other tests: snntorch.utils.reset resets every living instance of a class it meets."""
    snn = sys.modules.get("snntorch")
    before = [] if snn is None else list(snn.SpikingNeuron.instances)
    yield
    snn = sys.modules.get("snntorch")
    if snn is not None:
        snn.SpikingNeuron.instances[:] = before


def pytest_collection_modifyitems(items):
    """Mark what is not mended yet: strict, so that a mended case must leave the list."""
    listed = HERE / "open_cases.txt"
    open_cases = set(listed.read_text().split("\n")) if listed.exists() else set()
    for item in items:
        if item.path.is_relative_to(HERE) and f"{item.path.name}::{item.name}" in open_cases:
            strict = item.path.name != "test_threads.py"  # a race may be won
            item.add_marker(pytest.mark.xfail(strict=strict, reason="a known fault, listed in open_cases.txt"))
