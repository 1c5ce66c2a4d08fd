"""Arguments held to annotations: the short way gives what the long one does, and signatures of all sorts are read."""

from __future__ import annotations

import fractions
import math
from typing import Any

import numpy as np
import pytest
import torch

from delaykit.checks import annotated, annotations, fits, in_words
from delaykit.errors import ConfigError, ShapeError

VALUES = [
    0, -3, 2**63 - 1, 2**63, 10**400, True, 0.5, 1e308, math.inf, -math.inf, math.nan, fractions.Fraction(1, 3),
    "x", None, np.float32(2), np.int64(2), [1], torch.zeros(2), torch.nn.Parameter(torch.zeros(2)),
    torch.zeros(2, dtype=torch.cfloat), torch.zeros(2, device="meta"), torch.zeros(2, 2).to_sparse(), torch.zeros,
]  # fmt: skip
KINDS = [int, float, bool, str, type(None), torch.Tensor, list[int], float | None, int | torch.Tensor]


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_what_is_taken_at_once_is_taken_after_a_long_look(kind):
    at_once = [value for value in VALUES if annotations._evidently_fits(value, kind)]
    assert all(fits(value, kind) and annotations._is_sound(value) for value in at_once)
    assert at_once or kind not in KINDS[:4] + [torch.Tensor]


@annotated
def measure(spikes: torch.Tensor, /, dt: float, *rest: int, steps: int = 1, **more: str):
    return dt, rest, steps, more


def test_every_sort_of_argument_reaches_its_place():
    spikes = torch.zeros(2)
    assert measure(spikes, 1, 5, 6, steps=2, word="w") == (1, (5, 6), 2, {"word": "w"})
    for wrong, error, told in [
        (lambda: measure([0.0], 1.0), ShapeError, "measure spikes"),
        (lambda: measure(spikes, "1"), ConfigError, "measure dt"),
        (lambda: measure(spikes, dt="1"), ConfigError, "measure dt"),
        (lambda: measure(spikes, math.nan), ConfigError, "measure dt"),
        (lambda: measure(spikes, 1.0, steps=2.0), ConfigError, "measure steps"),
        (lambda: measure(spikes), TypeError, "dt"),
        (lambda: measure(spikes, 1.0, dt=1.0), TypeError, "multiple values"),
    ]:
        with pytest.raises(error, match=told):
            wrong()


def test_what_may_be_anything_is_said_in_words() -> None:
    assert in_words(tuple[int, Any]) == "(a whole number, anything)"
