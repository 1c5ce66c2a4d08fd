"""A backward written by hand gives first derivatives; a second one raises, wherever it is asked for."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from delaykit import HistoryError
from delaykit.functional.derivatives import DIFFERENCES, first_only


class Cube(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor) -> Tensor:
        ctx.save_for_backward(x, scale)
        return scale * x**3

    @staticmethod
    @first_only("cube", DIFFERENCES)
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None]:
        x, scale = ctx.saved_tensors
        return 3 * scale * x**2 * grad, None


def test_the_first_derivative_is_that_of_the_backward() -> None:
    x = torch.tensor([1.0, 2.0], dtype=torch.float64, requires_grad=True)
    (plain,) = torch.autograd.grad(Cube.apply(x, torch.tensor(2.0)).sum(), x)
    (graphed,) = torch.autograd.grad(Cube.apply(x, torch.tensor(2.0)).sum(), x, create_graph=True)
    assert plain.tolist() == graphed.tolist() == [6.0, 24.0]


@pytest.mark.parametrize("penalty", [lambda g: g.sum(), lambda g: (g**2).sum(), lambda g: g[0]])
def test_a_second_one_raises_where_torch_would_give_zero(penalty: Any) -> None:
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    (grad,) = torch.autograd.grad(Cube.apply(x, torch.tensor(2.0)).sum(), x, create_graph=True)
    with pytest.raises(HistoryError, match="cube: found second derivatives.*differences of first derivatives"):
        penalty(grad).backward()
