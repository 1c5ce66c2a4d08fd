"""What operators refuse: no tensors, tensors without numbers, and transforms that an adjoint by hand cannot pass."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.autograd import forward_ad

from delaykit import ConfigError, HistoryError, ShapeError
from delaykit.functional.dispatch import backend
from delaykit.functional.inputs import check_operands, check_tensors, initial_values, refuse_transforms


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ([1.0], "x of type list"),
        (None, "x of type NoneType"),
        (torch.zeros(2, device="meta"), "x on the meta device"),
        (torch.eye(2).to_sparse(), "x, a sparse tensor"),
        (torch.nested.nested_tensor([torch.ones(1), torch.ones(2)]), "x, a nested tensor"),
        (torch.ones(2, dtype=torch.int64), "x of dtype torch.int64"),
    ],
)
def test_what_holds_no_numbers_is_named(given: Any, found: str) -> None:
    with pytest.raises(ShapeError, match=f"delay_line: found {found}"):
        check_tensors("delay_line", x=given)


def test_what_may_be_none_or_whole_passes() -> None:
    check_tensors("delay_line", optional=("bias",), x=torch.ones(2), bias=None)
    check_tensors("delay_line", floating=False, index=torch.ones(2, dtype=torch.int64))


def test_transforms_are_refused_but_for_those_that_can_pass() -> None:
    def forward(x: torch.Tensor) -> torch.Tensor:
        check_operands("delay_line", x=x)
        return x.sum()

    def step(x: torch.Tensor) -> torch.Tensor:
        refuse_transforms("fc", x, remembers=True)
        return x.sum()

    x = torch.ones(3, 2)
    assert torch.func.vmap(forward)(x).tolist() == [2.0] * 3
    with pytest.raises(HistoryError, match="torch.func.grad"):
        torch.func.grad(forward)(x)
    with backend("reference"):
        assert torch.func.grad(forward)(x).tolist() == torch.ones(3, 2).tolist()
    with pytest.raises(HistoryError, match="a time step under torch.func.vmap"):
        torch.func.vmap(step)(x)
    with forward_ad.dual_level():
        forward(x)  # no tangent of its own
        with pytest.raises(HistoryError, match="forward-mode"):
            forward(forward_ad.make_dual(x, torch.ones_like(x)))


@pytest.mark.parametrize("given", [np.array([1.5, 2.0]), torch.tensor([1.5, 2.0]), [1.5, 2.0], (1.5, 2)])
def test_initial_values_are_as_json_holds_them(given: Any) -> None:
    assert initial_values("X.init", given, ("uniform",)) == [1.5, 2.0]


@pytest.mark.parametrize("wrong", [object(), torch.zeros(2, device="meta"), [[1.0], [1.0, 2.0]], True, 1j, 2**63])
def test_initial_values_that_are_none(wrong: Any) -> None:
    with pytest.raises(ConfigError, match="X.init: .*one of uniform, a number or a nested list"):
        initial_values("X.init", wrong, ("uniform",))
