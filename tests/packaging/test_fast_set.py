"""What `make test` runs of a test with many cases: all pairs of values, and never hundreds of cases."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
MOST = 150  # fast cases of a test
MANY_AND_QUICK = {  # milliseconds each
    "tests/packaging/test_docstrings.py::test_public_names_are_documented": "one a module",
    "tests/testing/faults/test_wrong_tensors.py::test_a_wrong_tensor_is_told_in_full": "one a call",
}


@pytest.fixture
def root(request: pytest.FixtureRequest) -> ModuleType:
    """The conftest.py of the whole tree."""
    found = request.config.pluginmanager.get_plugin(str(ROOT / "conftest.py"))
    assert isinstance(found, ModuleType)
    return found


def pairs(cases: Iterable[tuple[int, ...]]) -> set[tuple[tuple[int, int], ...]]:
    return {pair for case in cases for pair in itertools.combinations(enumerate(case), 2)}


@pytest.mark.parametrize(
    ("lists", "most"), [((2, 2, 2), 4), ((6, 4, 2, 2), 24), ((13, 3, 2), 39), ((2,) * 8, 8), ((5, 1, 4), 20)]
)
def test_few_cases_show_every_two_values_together(root: ModuleType, lists: tuple[int, ...], most: int) -> None:
    cases = list(itertools.product(*map(range, lists)))
    chosen = root.pairwise(cases)
    assert pairs(cases[k] for k in chosen) == pairs(cases) and len(chosen) <= most


def test_pairs_that_never_meet_are_not_asked_for(root: ModuleType) -> None:
    cases = [case for case in itertools.product(range(3), repeat=4) if sum(case) % 2]
    chosen = root.pairwise(cases)
    assert pairs(cases[k] for k in chosen) == pairs(cases) and len(chosen) < len(cases) / 2


@pytest.mark.parametrize("one", range(3))
@pytest.mark.parametrize("two", range(3))
@pytest.mark.parametrize(("three", "of_it"), [(0, "a"), (1, "b"), (2, "c")])
def test_a_product_of_three_lists_is_thinned(
    request: pytest.FixtureRequest, one: int, two: int, three: int, of_it: str
) -> None:
    mine = [item for item in request.session.items if item.nodeid.startswith(request.node.nodeid.partition("[")[0])]
    fast = [item for item in mine if item.get_closest_marker("slow") is None]
    shown = {(i.callspec.params["one"], i.callspec.params["two"], i.callspec.params["three"]) for i in fast}  # type: ignore[attr-defined]
    assert "abc"[three] == of_it and len(fast) < 14
    if len(fast) > 1:  # not one alone, asked for by its name
        assert pairs(shown) == pairs(itertools.product(range(3), repeat=3))


@pytest.mark.parametrize("one", range(2))
@pytest.mark.parametrize("two", range(2))
def test_a_product_of_two_lists_is_fast_as_a_whole(request: pytest.FixtureRequest, one: int, two: int) -> None:
    assert request.node.get_closest_marker("slow") is None


def too_many(tests: Iterable[str]) -> dict[str, int]:
    """Return the tests with more cases than one may have, and how many."""
    return {test: n for test, n in Counter(tests).items() if n > MOST and test not in MANY_AND_QUICK}


def test_no_test_has_hundreds_of_fast_cases(request: pytest.FixtureRequest) -> None:
    items = [item for item in request.session.items if item.get_closest_marker("slow") is None]
    assert too_many(item.nodeid.partition("[")[0] for item in items) == {}


def test_hundreds_of_cases_are_found() -> None:
    assert too_many(["a.py::test_one"] * 151 + ["a.py::test_two", "b.py::test_one"] * 150) == {"a.py::test_one": 151}
