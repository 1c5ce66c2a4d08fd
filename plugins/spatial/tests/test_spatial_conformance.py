"""The laws of every component, for Spatial."""

from __future__ import annotations

import math

import pytest

from delaykit.testing import ComponentConformance
from delaykit_spatial import Spatial

# Nothing is late where all neurons sit at one place and no floor is added; self connections stay as in the bare model.
IDENTITY = {"floor": 0.0, "scale": 0.0, "self_connections": True}
ONE_PLACE = {
    "bounds_do_not_stop_learning": "positions have no bounds; one number everywhere puts all neurons at one place, "
    "where the distance has no slope"
}


SLOWLY = "it starts processes or compilers for up to a minute; TestTwoDimensionsSlowly runs it"


class TestTwoDimensions(ComponentConformance):
    config = Spatial(2, scale=2.0, max_ms=7.0)
    identity_config = Spatial(2, **IDENTITY)
    skip = ONE_PLACE | {"compiled_equals_eager": SLOWLY, "two_processes_equal_one": SLOWLY}


@pytest.mark.slow
class TestTwoDimensionsSlowly(TestTwoDimensions):
    skip = ONE_PLACE


TWO = "shown by TestTwoDimensionsSlowly: the tools around a net see the same modules whatever the space"
TOOLS = {"two_processes_equal_one": TWO, "compiled_equals_eager": TWO}


@pytest.mark.slow
class TestFree(ComponentConformance):
    config = Spatial(math.inf, mean=2.5, scale=0.8, max_ms=7.0)
    identity_config = Spatial(math.inf, mean=0.0, scale=0.0, self_connections=True)
    skip = TOOLS


@pytest.mark.slow
class TestTortuous(ComponentConformance):
    config = Spatial(3, scale=1.5, tortuosity=0.8, max_ms=7.0)
    identity_config = Spatial(3, tortuosity=0.8, **IDENTITY)
    skip = ONE_PLACE | TOOLS


@pytest.mark.slow
class TestWeightsOnly(ComponentConformance):
    config = Spatial(0, floor=2.0)
    identity_config = Spatial(0, floor=0.0, self_connections=True)
    skip = TOOLS


ITS_OWN = "an exact gradient is that of the network in continuous time, not of the convolution; it has tests of its own"


@pytest.mark.slow
class TestExact(ComponentConformance):
    config = Spatial(2, scale=2.0, max_ms=7.0, estimator="exact")
    identity_config = Spatial(2, estimator="exact", **IDENTITY)
    libraries = ("snntorch-synaptic", "norse")
    skip = ONE_PLACE | {
        "sequence_equals_reference": ITS_OWN,
        "gradcheck": ITS_OWN,
        "gradients_equal_reference": ITS_OWN,
        "truncated_bptt_equals_reference": ITS_OWN,
        "shared_module_is_wrapped_once": "exact gradients want one neuron behind a connection, and refuse a shared one",
    }
