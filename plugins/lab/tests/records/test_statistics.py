"""Sentences say no more than the numbers do."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from delaykit_lab.records.statistics import chance_levels, conclusions, standard_error, table, welch_interval


def test_interval_is_that_of_welchs_test():
    first, second = [0.95, 0.93, 0.96], [0.88, 0.91, 0.90, 0.87]
    got = welch_interval(first, second, samples=100_000)
    wanted = stats.ttest_ind(first, second, equal_var=False).confidence_interval(0.95)
    assert (got.low, got.high) == pytest.approx((100 * wanted.low, 100 * wanted.high))
    assert got.difference == pytest.approx(100 * (np.mean(first) - np.mean(second)))


@pytest.mark.parametrize(("first", "second", "verdict"), [
    ([0.95, 0.94, 0.96], [0.88, 0.90, 0.89], "more"),
    ([0.88, 0.90, 0.89], [0.95, 0.94, 0.96], "less"),
    ([0.95, 0.90, 0.93], [0.94, 0.91, 0.92], "within"),
    ([0.99], [0.10], "unknown"),
])  # fmt: skip
def test_verdicts(first, second, verdict):
    assert welch_interval(first, second, samples=370).verdict == verdict


def test_seeds_that_agree_by_chance_do_not_make_certainty():
    got = welch_interval([0.9, 0.9, 0.9], [0.91, 0.91, 0.91], samples=100)
    assert got.verdict == "within" and got.low < -1.0 < got.high


def test_standard_error():
    assert standard_error([0.1, 0.2, 0.6]) == pytest.approx(np.std([0.1, 0.2, 0.6], ddof=1) / 3**0.5)
    assert standard_error([0.5]) is None


def test_conclusions_name_what_is_shown_and_what_is_not():
    bare, frozen, learned = [0.88, 0.89, 0.9], [0.94, 0.95, 0.96], [0.95, 0.94, 0.96]
    lines = conclusions({"bare": bare, "frozen": frozen, "learned": learned, "whole": bare}, 370)
    assert "delays help here" in lines[0] and "delays help here" in lines[1]
    assert "within the error" in lines[2]
    assert "whole steps against none" in lines[3] and "within the error" in lines[3]
    assert "370 samples" in lines[4] and "1.6 points" in lines[4]


def test_conclusions_of_one_seed_claim_nothing():
    lines = conclusions({"bare": [0.8], "frozen": [0.9], "learned": [0.95], "whole": [0.9]}, 370)
    assert len(lines) == 4 and all("supports nothing yet" in line for line in lines)


def test_harm_is_called_harm():
    bare, frozen, learned = [0.95, 0.95, 0.96], [0.8, 0.81, 0.8], [0.6, 0.61, 0.6]
    lines = conclusions({"bare": bare, "frozen": frozen, "learned": learned, "whole": learned}, 370)
    assert "delays hurt" in lines[0] and "learning hurts" in lines[2] and "delays hurt" in lines[3]


def test_chance_levels():
    assert chance_levels(torch.tensor([0, 0, 1, 2]), 4) == (0.25, 0.5)


def test_table_columns_line_up():
    lines = table([["net", "size"], ["a long name", "7"]]).splitlines()
    assert len({len(line) for line in lines}) == 1
