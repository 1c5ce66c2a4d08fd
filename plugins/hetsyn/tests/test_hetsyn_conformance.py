"""The laws of every component, for HetSyn."""

from __future__ import annotations

import pytest

from delaykit.testing import ComponentConformance
from delaykit_hetsyn import HetSyn


class TestSynaptic(ComponentConformance):
    config = HetSyn()


@pytest.mark.slow
class TestPost(ComponentConformance):
    config = HetSyn("post")


@pytest.mark.slow
class TestPre(ComponentConformance):
    config = HetSyn("pre")


@pytest.mark.slow
class TestLayer(ComponentConformance):
    config = HetSyn("layer")


@pytest.mark.slow
class TestPartlyFrozen(ComponentConformance):
    config = HetSyn(frozen=0.5)


@pytest.mark.slow
class TestDrawn(ComponentConformance):
    config = HetSyn(tau=("normal", 5.0, 2.0), dt_ms=1.0)
    identity_config = HetSyn()


@pytest.mark.slow
class TestGroups(ComponentConformance):
    config = HetSyn(groups=6)
