"""Every law on the free delay, in every granularity and kernel.

Four combinations run by default, so that each granularity and each kernel is met once; the other twelve are slow.
"""

from __future__ import annotations

import pytest

from delaykit import FreeDelay
from delaykit.testing import ComponentConformance

MAX_DELAY = 5
KERNELS = {
    "linear": {"kernel": "linear"},
    "triangle": {"kernel": "triangle", "spread": 2.0, "spread_decay": 0.95},
    "gaussian": {"kernel": "gaussian", "spread": 0.5},
    "hard": {"kernel": "hard", "learn": False},
}
NEVER_IDENTITY = "a DCLS gaussian of spread 0 is still 0.27 steps wide, so it is never the bare connection"
ONCE = "shown once, by TestAxonalLinear: the tools around a net see the same modules whatever the kernel"
BY_FOUR = "shown by the four that run by default, each granularity and each kernel once"


def conformance(granularity, kernel, **skip):
    """Make one test class."""
    options = {"max_delay": MAX_DELAY, **KERNELS[kernel]}
    skip |= {"identity_at_init": NEVER_IDENTITY} if kernel == "gaussian" else {}
    members = {
        "__module__": __name__,
        "config": FreeDelay(granularity, **options),
        "identity_config": FreeDelay(granularity, **options | {"init": 0.0, "spread": 0.0}),
        "skip": skip,
    }
    return type(f"Test{granularity.title()}{kernel.title()}", (ComponentConformance,), members)


def lean(granularity, kernel, **skip):
    return conformance(granularity, kernel, two_processes_equal_one=ONCE, compiled_equals_eager=ONCE, **skip)


TestAxonalLinear = conformance("axonal", "linear")
TestSynapticTriangle = lean("synaptic", "triangle")
TestDendriticGaussian = lean("dendritic", "gaussian")
TestLayerHard = lean("layer", "hard")
BY_DEFAULT = {TestAxonalLinear, TestSynapticTriangle, TestDendriticGaussian, TestLayerHard}

for _granularity in ("layer", "axonal", "dendritic", "synaptic"):
    for _kernel in KERNELS:
        _name = f"Test{_granularity.title()}{_kernel.title()}"
        if _name not in globals():
            globals()[_name] = pytest.mark.slow(lean(_granularity, _kernel, compiled_sequences_equal_eager=BY_FOUR))


def test_the_table_is_complete():
    classes = [value for name, value in globals().items() if name.startswith("Test") and isinstance(value, type)]
    assert len(classes) == 16 and set(classes) > BY_DEFAULT
    assert {(c.config.granularity, c.config.kernel) for c in classes} == {
        (g, k) for g in ("layer", "axonal", "dendritic", "synaptic") for k in KERNELS
    }
