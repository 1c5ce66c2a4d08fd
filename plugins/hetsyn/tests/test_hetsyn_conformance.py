"""The laws of every component, for HetSyn."""

from __future__ import annotations

import pytest

from delaykit.testing import ComponentConformance
from delaykit_hetsyn import HetSyn

# Processes and dynamo see the same modules whatever their numbers, and take up to a minute a class.
SYNAPTIC = "shown by TestSynaptic: the tools around a net see the same modules whatever the time constants"
TOOLS = {"two_processes_equal_one": SYNAPTIC, "compiled_equals_eager": SYNAPTIC}
SEQUENCES = {"compiled_sequences_equal_eager": "shown by TestSynaptic, TestPost, TestPre and TestGroups"}


class TestSynaptic(ComponentConformance):
    config = HetSyn()


@pytest.mark.slow
class TestPost(ComponentConformance):
    config = HetSyn("post")
    skip = TOOLS


@pytest.mark.slow
class TestPre(ComponentConformance):
    config = HetSyn("pre")
    skip = TOOLS


@pytest.mark.slow
class TestLayer(ComponentConformance):
    config = HetSyn("layer")
    skip = TOOLS | SEQUENCES


@pytest.mark.slow
class TestPartlyFrozen(ComponentConformance):
    config = HetSyn(frozen=0.5)
    skip = TOOLS | SEQUENCES


@pytest.mark.slow
class TestDrawn(ComponentConformance):
    config = HetSyn(tau=("normal", 5.0, 2.0), dt_ms=1.0)
    identity_config = HetSyn()
    skip = TOOLS | SEQUENCES


@pytest.mark.slow
class TestGroups(ComponentConformance):
    config = HetSyn(groups=6)
    skip = TOOLS
