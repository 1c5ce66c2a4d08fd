"""Derivatives of surrogates in closed form, for compiled adjoints that then need not ask autograd.

A surrogate is any function, and its derivative is what autograd says. Libraries' own ones are rational functions of
their input; an adapter names the form, and :func:`slope_of` believes it only after autograd has said the same.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

ARCTAN, FAST_SIGMOID = 1, 2


class Slope(NamedTuple):
    """A surrogate's derivative at ``x = u - threshold``.

    ``height / (1 + (width x)^2)`` for form 1, the arctangent; ``height / (1 + width |x|)^2`` for form 2, the fast
    sigmoid.

    Args:
        form: 1 or 2.
        height: the derivative at the threshold.
        width: how fast it falls.

    Example:
        >>> Slope(FAST_SIGMOID, 1.0, 1.0)(torch.tensor([-1.0, 0.0, 3.0])).tolist()
        [0.25, 1.0, 0.0625]
    """

    form: int
    height: float
    width: float

    def __call__(self, x: Tensor) -> Tensor:
        """Evaluate it."""
        if self.form == ARCTAN:
            return self.height / (1 + (self.width * x).square())
        return self.height / (1 + self.width * x.abs()).square()


@functools.lru_cache(maxsize=64)
def slope_of(surrogate: Callable[[Tensor], Tensor], form: int, height: float, width: float) -> Slope | None:
    """Return the closed form of a surrogate's derivative; None where autograd says anything else.

    Args:
        surrogate: elementwise, deterministic.
        form: what it should be, see :class:`Slope`, as height and width.
        height: see form.
        width: see form.

    Example:
        >>> slope_of(torch.atan, ARCTAN, 1.0, 1.0)
        Slope(form=1, height=1.0, width=1.0)
        >>> slope_of(torch.tanh, ARCTAN, 1.0, 1.0) is None
        True
    """
    known = Slope(form, height, width)
    with torch.inference_mode(False), torch.enable_grad():
        far = torch.logspace(-8, 4, 241, dtype=torch.float64)
        x = torch.cat([-far.flip(0), torch.zeros(1, dtype=torch.float64), far]).requires_grad_()
        fired = surrogate(x)
        if not fired.requires_grad:
            return None
        (told,) = torch.autograd.grad(fired, x, torch.ones_like(fired))
    agrees = torch.allclose(told.double(), known(x.detach()), rtol=1e-9, atol=0.0)
    return known if agrees else None


@functools.lru_cache(maxsize=64)
def scales(surrogate: Callable[[Tensor], Tensor]) -> bool:
    """Tell whether a surrogate's backward is its derivative times what comes in, as a fused adjoint takes it to be.

    One that clips what comes in, or draws at random, is not.

    Args:
        surrogate: elementwise.

    Example:
        >>> scales(torch.tanh)
        True
        >>> class Clipped(torch.autograd.Function):
        ...     @staticmethod
        ...     def forward(ctx, x):
        ...         return (x > 0).to(x.dtype)
        ...     @staticmethod
        ...     def backward(ctx, grad):
        ...         return grad.clamp(-0.1, 0.1)
        >>> scales(Clipped.apply)
        False
    """
    try:
        with torch.inference_mode(False), torch.enable_grad():
            x = torch.linspace(-2.0, 2.0, 9).unsqueeze(0).requires_grad_()
            fired = surrogate(x)
            if not fired.requires_grad:
                return True
            each = [torch.autograd.grad(fired, x, torch.full_like(fired, by), True)[0] / by for by in (1e-3, 1.0, -1e3)]
    except Exception:  # it takes no tensor of this shape: nothing is known of it
        return False
    return all(torch.allclose(one, each[1], rtol=1e-4, atol=1e-7) for one in each)
