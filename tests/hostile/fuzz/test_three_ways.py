"""Random connections of every component: step loop, whole sequence and rollout give the same, gradients included."""

from __future__ import annotations

import pytest

pytest.importorskip("snntorch", reason="runs snntorch neurons")
from three_ways import three_ways  # noqa: E402


def test_a_few_connections():
    assert not three_ways(range(12))


@pytest.mark.slow
@pytest.mark.parametrize("part", range(3))
def test_hundreds_of_connections(part):
    assert not three_ways(range(1000 + 300 * part, 1300 + 300 * part))
