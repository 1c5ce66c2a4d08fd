"""The laws of every component, for DelRec and DCLS."""

from __future__ import annotations

import pytest

from delaykit.testing import ComponentConformance
from delaykit_delrec import DCLS, DelRec

IDENTITY = DelRec(max_delay=6, sigma=0.0, init=0.0)
# Processes and dynamo see the same modules whatever their numbers, and take up to a minute a class.
NARROW = "shown by TestAxonalNarrow: the tools around a net see the same modules whatever the spread"
TOOLS = {"two_processes_equal_one": NARROW, "compiled_equals_eager": NARROW}
SEQUENCES = {"compiled_sequences_equal_eager": "shown by the other classes, which run by other operators"}


class TestAxonalNarrow(ComponentConformance):
    config = DelRec(max_delay=6, sigma=0.4, init=1.7)
    identity_config = IDENTITY


@pytest.mark.slow
class TestAxonalWide(ComponentConformance):
    config = DelRec(max_delay=6, sigma=3.0, init=1.7)
    identity_config = IDENTITY
    skip = TOOLS | SEQUENCES


@pytest.mark.slow
class TestLearnedSpread(ComponentConformance):
    config = DelRec(max_delay=6, sigma=2.0, learn_spread=True, init=1.7)
    identity_config = IDENTITY
    skip = TOOLS


@pytest.mark.slow
class TestSynaptic(ComponentConformance):
    config = DelRec("synaptic", max_delay=6, sigma=0.4, init="uniform", low=0.5, high=4.0)
    identity_config = DelRec("synaptic", max_delay=6, sigma=0.0, init=0.0)
    skip = TOOLS


@pytest.mark.slow
class TestHybrid(ComponentConformance):
    config = DelRec("hybrid", max_delay=6, sigma=0.4, init=1.7)
    identity_config = DelRec("hybrid", max_delay=6, sigma=0.0, init=0.0)
    skip = TOOLS | SEQUENCES


@pytest.mark.slow
class TestLayer(ComponentConformance):
    config = DelRec("layer", max_delay=6, sigma=0.4, init=1.7)
    identity_config = DelRec("layer", max_delay=6, sigma=0.0, init=0.0)
    skip = TOOLS | SEQUENCES


@pytest.mark.slow
class TestDCLS(ComponentConformance):
    config = DCLS(7, sigma=0.5)
    identity_config = DCLS(7, version="v1", normalize=False, init=0.0)
    skip = TOOLS


@pytest.mark.slow
class TestDCLSTriangle(ComponentConformance):
    config = DCLS(7, version="max", sigma=0.5)
    identity_config = DCLS(7, version="v1", normalize=False, init=0.0)
    skip = TOOLS | SEQUENCES


@pytest.mark.slow
class TestDCLSWide(ComponentConformance):
    config = DCLS(9, sigma=3.0)
    identity_config = DCLS(9, version="v1", normalize=False, init=0.0)
    skip = TOOLS | {"causality": "transforms are causal to rounding, not to the bit: test_delrec_dcls bounds the rest"}
