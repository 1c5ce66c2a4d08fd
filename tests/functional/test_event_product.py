"""Laws of the product by events: torch's product and gradients, whichever way it goes; what is no number stays."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from delaykit.functional.delayed_linear.product import linear
from delaykit.functional.dispatch import backend
from tests.functional.judging import needs_numba


def spikes(rows: int, inputs: int, density: float, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(rows)
    x = torch.randn(rows, 3, inputs, generator=generator, dtype=torch.float64)
    return (x * (torch.rand(x.shape, generator=generator) < density)).to(dtype)


@needs_numba
@pytest.mark.parametrize("density", [0.0, 0.1, 0.9])
@pytest.mark.parametrize(("rows", "inputs", "outputs"), [(1, 5, 3), (70, 33, 300), (90, 20, 77)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_equals_the_dense_product(density: float, rows: int, inputs: int, outputs: int, dtype: torch.dtype) -> None:
    """Outputs that fill all registers, some and none; rows by blocks."""
    generator = torch.Generator().manual_seed(1)
    given = (
        spikes(rows, inputs, density),
        *(torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((outputs, inputs), (outputs,))),
    )
    cotangent = torch.randn(rows, 3, outputs, generator=generator, dtype=torch.float64)
    found = []
    for run, to in ((linear, dtype), (F.linear, torch.float64)):
        leaves = [t.to(to).requires_grad_() for t in given]
        with backend("cpu"):
            out = run(*leaves)
            found.append([out, *torch.autograd.grad(out, leaves, cotangent.to(to))])
    for one, other in zip(*found, strict=True):
        tolerance = 1e-12 if dtype == torch.float64 else 2e-5
        torch.testing.assert_close(one.double(), other, rtol=tolerance, atol=tolerance)


@needs_numba
def test_gradients_and_their_gradients() -> None:
    x, weight = spikes(4, 5, 0.3).requires_grad_(), torch.rand(64, 5, dtype=torch.float64, requires_grad=True)

    def product(x: Tensor, weight: Tensor) -> Tensor:
        with backend("cpu"):
            return linear(x, weight)[..., :3]

    assert torch.autograd.gradcheck(product, (x, weight))
    assert torch.autograd.gradgradcheck(product, (x, weight))


@needs_numba
@pytest.mark.parametrize("number", [torch.inf, torch.nan])
def test_what_is_no_number_is_nowhere_left_out(number: float) -> None:
    x, weight = spikes(6, 5, 0.2, torch.float32), torch.ones(70, 5, requires_grad=True)
    x[:, :, 2] = 0
    with torch.no_grad():
        weight[1, 2] = number  # of an input that is silent
    with backend("cpu"):
        found, expected = linear(x, weight), F.linear(x, weight)
        assert torch.equal(found.isnan(), expected.isnan())
        cotangent = torch.ones_like(found)
        cotangent[0, 0, 1] = number
        grads = [torch.autograd.grad(out, weight, cotangent)[0] for out in (found, expected)]
    assert torch.equal(grads[0].isnan(), grads[1].isnan())


def test_under_autocast_it_rounds_as_ever() -> None:
    x, weight = spikes(6, 5, 0.2, torch.float32), torch.rand(4, 5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert linear(x, weight).dtype == torch.bfloat16
