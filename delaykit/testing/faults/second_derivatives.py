"""Second derivatives are right, or refused: also those that ``torch.autograd.grad`` is asked for by name."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from delaykit.errors import HistoryError
from delaykit.functional.dispatch import backend


def check_second_derivatives(run: Callable[[], Tensor], leaves: Sequence[Tensor]) -> None:
    """Differentiate a result by every leaf, and that by every leaf; compare with ``dk.backend("reference")``.

    ``torch.autograd.grad(result, leaf)`` passes only what lies on the way to that leaf: an operator whose adjoint was
    written by hand has to be met on the way to each of them.

    Args:
        run: makes the result anew, in float64.
        leaves: what it is made of, all with gradients.

    Raises:
        AssertionError: a second derivative is neither the reference's nor refused.

    Example:
        >>> x = torch.ones(3, dtype=torch.float64, requires_grad=True)
        >>> check_second_derivatives(lambda: x.pow(3), [x])
    """
    for power, (one, two) in itertools.product((1, 2), itertools.product(leaves, leaves)):
        try:
            found = _second(run, power, one, two)
        except HistoryError as error:
            assert "first derivatives only" in str(error), error
            continue
        with backend("reference"):
            wanted = _second(run, power, one, two)
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-12)


def _second(run: Callable[[], Tensor], power: int, one: Tensor, two: Tensor) -> Tensor:
    grads = torch.autograd.grad(run().pow(power).sum(), one, create_graph=True, materialize_grads=True)
    if not grads[0].requires_grad:
        return torch.zeros_like(two)
    return torch.autograd.grad(grads[0].pow(2).sum(), two, materialize_grads=True)[0]
