"""A wide triangle by its kinks is the triangle written out, cut at zero, with its slopes by delay and width."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from delaykit.functional.second_differences import triangle_taps

WINDOW = 16
DELAYS = torch.tensor([[0.0, 0.3, 1.0], [2.5, 4.0, 6.75]], dtype=torch.float64)  # some are cut off at tau < 0


def dense(delays: Tensor, width: Tensor, epsilon: float | None) -> Tensor:
    tau = torch.arange(WINDOW, dtype=torch.float64)
    height = (width.unsqueeze(-1) - (tau - delays.unsqueeze(-1)).abs()).clamp(min=0)
    return height / (width.unsqueeze(-1) ** 2 if epsilon is None else height.sum(-1, keepdim=True) + epsilon)


@pytest.mark.parametrize("epsilon", [None, 1e-3])
@pytest.mark.parametrize("width", [1.0, 1.3, 2.0, 4.7])
def test_values_and_slopes_are_those_of_the_triangle(width: float, epsilon: float | None) -> None:
    delays = DELAYS.clone().requires_grad_()
    widths = torch.full_like(DELAYS, width).requires_grad_()
    taps = triangle_taps(delays, widths, epsilon)
    assert taps.order == 2 and int(((taps.value != 0).sum(0)).max()) <= 6
    found, wanted = taps.response(WINDOW), dense(delays, widths, epsilon)
    torch.testing.assert_close(found, wanted, atol=1e-12, rtol=0)
    weight = torch.cos(torch.arange(wanted.numel(), dtype=torch.float64)).view_as(wanted)
    both = [torch.autograd.grad((response * weight).sum(), (delays, widths)) for response in (found, wanted)]
    for one, other in zip(*both, strict=True):
        torch.testing.assert_close(one, other, atol=1e-11, rtol=0)
