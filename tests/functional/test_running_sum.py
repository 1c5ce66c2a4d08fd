"""Laws of running_sum: every backend equals the judge, gradients of gradients, refusals."""

from __future__ import annotations

import pytest
import torch

from delaykit.errors import ShapeError
from delaykit.functional.dispatch import backend
from delaykit.functional.running_sum import running_sum
from tests.functional.judging import BACKENDS, DTYPES, assert_judged, drawn


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("reverse", [False, True])
def test_equals_the_judge(name: str, dtype: torch.dtype, channels: int, reverse: bool) -> None:
    assert_judged(name, dtype, lambda x, r: running_sum(x, r, reverse), drawn(9, 2, 3), drawn(channels, seed=1))


@pytest.mark.parametrize("name", ["reference", "torch", "cpu"])
def test_equals_its_impulse_response(name: str) -> None:
    """An impulse at step 1 decays by the factor from step to step."""
    x, decay = torch.zeros(5, 1, 2, dtype=torch.float64), torch.tensor([0.5, 0.0], dtype=torch.float64)
    x[1] = 1
    with backend(name):
        found = running_sum(x, decay)[:, 0].T
    assert found.tolist() == [[0, 1, 0.5, 0.25, 0.125], [0, 1, 0, 0, 0]]


@pytest.mark.parametrize("reverse", [False, True])
def test_gradients_and_their_gradients(reverse: bool) -> None:
    inputs = drawn(5, 2, 3).requires_grad_(), drawn(3, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, r: running_sum(x, r, reverse), inputs)


@pytest.mark.parametrize(("x", "decay"), [((5, 3), (3,)), ((5, 2, 3), (2,)), ((5, 2, 3), (1, 3))])
def test_shapes_that_do_not_fit_are_named(x: tuple[int, ...], decay: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match=r"running_sum.*\(channel,\)"):
        running_sum(torch.zeros(x), torch.zeros(decay))
