"""The loop fuzzer: random edits of loops, states, batches, weights and threads against a queue-hook reference."""

from __future__ import annotations

import pytest

pytest.importorskip("snntorch", reason="fuzzes snntorch loops")
pytest.importorskip("norse.torch", reason="fuzzes norse loops")
from compare import fuzz, report  # noqa: E402


def test_a_hundred_programs():
    faults, refused = fuzz(range(100))
    assert not faults, report(faults)
    assert refused < 40, "a fuzzer whose programs are refused shows little"


@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))
def test_thousands_of_programs(part):  # all planted faults show in 300; the rest is for those nobody planted
    first = 1000 + 500 * part
    faults, refused = fuzz(range(first, first + 500))
    assert not faults, report(faults)
    assert refused < 200
