"""Numbers that ride along tell what became of the rows of a state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from delaykit.attaching.batch.rows import Rows, moved, number


def test_rows_are_numbered_from_one_in_the_rank_of_the_state() -> None:
    assert number(torch.zeros(3, 4, 5)).flatten().tolist() == [1, 2, 3] and number(torch.zeros(3, 4, 5)).dim() == 3
    assert number(torch.zeros(2, dtype=torch.float16)).dtype == torch.float32  # which counts beyond 2048


@pytest.mark.parametrize(
    ("change", "before"),
    [
        (lambda v: v[[2, 0, 1]], [2, 0, 1]),
        (lambda v: v[torch.tensor([True, False, True])], [0, 2]),
        (lambda v: v.flip(0), [2, 1, 0]),
        (lambda v: v * torch.tensor([[1.0], [0.0], [1.0]]), [0, None, 2]),
        (lambda v: torch.where(torch.tensor([[True], [False], [False]]), v, torch.zeros(3, 1)), [0, None, None]),
        (lambda v: torch.cat([v[1:], v[:1]]), [1, 2, 0]),
        (lambda v: 2 * v, "edit"),
        (lambda v: v + 0.5, "edit"),
        (lambda v: v[[0, 0, 1]], None),
        (lambda v: v.sum(), None),
    ],
)
def test_what_was_done_to_a_state_is_read_off(change: Callable[[Any], Any], before: Any) -> None:
    assert moved(change(Rows(number(torch.zeros(3, 1)))).ids, 3) == before


def test_rows_whose_columns_differ_cannot_be_told() -> None:
    ids: Tensor = number(torch.zeros(2, 1)) * torch.tensor([[1.0, 2.0]])
    assert moved(ids, 2) is None and moved(torch.zeros(2, 0), 2) is None
    assert moved(torch.zeros(0, 3), 2) == []  # all rows were cut off
