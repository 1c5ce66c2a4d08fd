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
        snn.SpikingNeuron.instances[:] = [neuron for neuron in before if is_alive(neuron)]


def is_alive(neuron: object) -> bool:
    """Tell whether an entry is not the weak proxy of a neuron that is gone: a list that is put back may hold some."""
    try:
        return neuron.__class__ is not None
    except ReferenceError:
        return False
