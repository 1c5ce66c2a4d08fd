"""Random connections of every component: step loop, whole sequence and rollout give the same, gradients included."""

from __future__ import annotations

import pytest

from delaykit.testing.faults import how_many

pytest.importorskip("snntorch", reason="runs snntorch neurons")
from three_ways import three_ways  # noqa: E402


def test_a_few_connections():
    assert not three_ways(range(12))


@pytest.mark.slow
@pytest.mark.parametrize("part", range(3))
def test_hundreds_of_connections(part):
    first = 1000 + 300 * part
    assert not three_ways(range(first, first + how_many(120, 300)))
