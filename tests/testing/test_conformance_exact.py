"""The laws of wrapping on exact gradients: the same values as whole arrivals, the same tools around them.

Gradients have laws of their own, in ``tests/integration/test_exact_wrapping.py``: autograd through the impulse response
does not know them.
"""

from __future__ import annotations

import pytest

from delaykit import FreeDelay
from delaykit.testing import ComponentConformance

ITS_OWN = "an exact gradient is that of the network in continuous time, not of the convolution; it has tests of its own"
SKIP = {
    "sequence_equals_reference": ITS_OWN,
    "gradcheck": ITS_OWN,
    "gradients_equal_reference": ITS_OWN,
    "truncated_bptt_equals_reference": ITS_OWN,
    "shared_module_is_wrapped_once": "exact gradients ask for one neuron behind a connection, and refuse a shared one",
}


def conformance(granularity, **skip):
    config = {"max_delay": 5, "estimator": "exact"}
    members = {
        "__module__": __name__,
        "config": FreeDelay(granularity, **config),
        "identity_config": FreeDelay(granularity, **config | {"init": 0.0}),
        "libraries": ("snntorch-synaptic", "norse"),
        "skip": SKIP | skip,
    }
    return type(f"TestExact{granularity.title()}", (ComponentConformance,), members)


ONCE = "shown once, by TestExactSynaptic"
TestExactSynaptic = conformance("synaptic")
TestExactAxonal = conformance("axonal", two_processes_equal_one=ONCE, compiled_equals_eager=ONCE)
TestExactDendritic = pytest.mark.slow(
    conformance("dendritic", two_processes_equal_one=ONCE, compiled_equals_eager=ONCE)
)
