"""Let every test import ``hand``, the delays written out by hand, and the networks beside it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "networks"))  # pytest's importlib mode adds no folders


@pytest.fixture(autouse=True)
def own_neurons_only():
    """Forget the neurons of other tests: snntorch.utils.reset resets every living instance of a class it meets."""
    snn = sys.modules.get("snntorch")
    before = [] if snn is None else list(snn.SpikingNeuron.instances)
    yield
    snn = sys.modules.get("snntorch")
    if snn is not None:
        snn.SpikingNeuron.instances[:] = before
