"""A part's parameters keep the sizes that they were made with."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from delaykit import ShapeError
from delaykit.sizes import check_sizes, remember_sizes_


def part() -> nn.Module:
    made = nn.Sequential(nn.Linear(2, 3))
    remember_sizes_(made)
    return made


def test_new_values_of_the_same_size_pass_as_does_what_was_never_seen() -> None:
    made = part()
    made[0].bias = nn.Parameter(torch.ones(3, dtype=torch.float64))
    check_sizes("fc", made)
    check_sizes("fc", nn.Linear(2, 3))


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (nn.Parameter(torch.zeros(4)), r"parameter 0.bias of shape \(4,\)"),
        (nn.Parameter(torch.zeros(3, dtype=torch.int64), requires_grad=False), "torch.int64"),
        (None, "no parameter 0.bias"),
    ],
)
def test_another_size_or_kind_is_named_with_the_one_it_was_made_with(value: object, found: str) -> None:
    made = part()
    made[0].bias = value
    with pytest.raises(ShapeError, match=f"fc: found .*{found}.*shape \\(3,\\), floating point"):
        check_sizes("fc", made)
