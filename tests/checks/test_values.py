"""Values in their range: at the bounds, beyond them, and of other kinds."""

from __future__ import annotations

import math
from typing import Any

import pytest

from delaykit import ConfigError, checks
from delaykit.checks import values


@pytest.mark.parametrize("bounds", [{"above": 0, "most": 1}, {"least": 0, "below": 1}])
def test_a_bound_is_open_or_closed(bounds: dict[str, float]) -> None:
    inside, outside = (1.0, 0.0) if "most" in bounds else (0.0, 1.0)
    values.number("X.y", inside, **bounds)
    for wrong in (outside, -0.5, 1.5):
        with pytest.raises(ConfigError, match=r"a number in .0, 1."):
            values.number("X.y", wrong, **bounds)


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf, True, "1", None, 1j, 2**63, 1e39, [1.0]])
def test_no_finite_number_that_torch_holds(wrong: Any) -> None:
    with pytest.raises(ConfigError, match="X.y: found .*expected a finite number"):
        values.number("X.y", wrong)


@pytest.mark.parametrize("wrong", [-1, 1.0, True, "2", None, 2**63])
def test_no_whole_number(wrong: Any) -> None:
    values.whole("X.y", 0)
    with pytest.raises(ConfigError, match="a whole number >= 0"):
        values.whole("X.y", wrong)


def test_a_word_near_to_one_is_suggested_and_a_flag_is_no_number() -> None:
    with pytest.raises(ConfigError, match="did you mean 'linear'"):
        values.choice("X.y", "liner", ("linear", "hard"))
    with pytest.raises(ConfigError, match="one of linear, hard"):
        values.choice("X.y", 3, ("linear", "hard"))
    for wrong in (0, 1, None, "True"):
        with pytest.raises(ConfigError, match="True or False"):
            values.flag("X.y", wrong)


def test_what_takes_too_much_is_told_by_its_size_and_few_large_ones_pass() -> None:
    values.affordable("fc", values.LONG, 2**30, "delays", "lower it")
    values.affordable("fc", 10**6, 1, "delays", "lower it")
    with pytest.raises(ConfigError, match="1000000 delays, which would take 3.7 GiB"):
        values.affordable("fc", 10**6, 1000, "delays", "lower it")


def test_a_value_whose_repr_fails_is_shown_by_its_kind() -> None:
    class Odd:
        def __repr__(self) -> str:
            raise RuntimeError

    assert values.shown(Odd()) == "a Odd" and values.shown(10**5000) == "a int"
    assert checks.shown is values.shown
