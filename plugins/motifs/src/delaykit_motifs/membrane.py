"""A leaky membrane whose leak is known beforehand: linear, so its adjoint is the same sweep backwards."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from delaykit.functional.derivatives import DIFFERENCES, first_only


def leaky_membrane(current: Tensor, keep: Tensor) -> Tensor:
    """Integrate ``u[t] = keep[t] u[t-1] + current[t]`` from ``u[-1] = 0``.

    Args:
        current: ``(time, ...)``.
        keep: what is left of the membrane before, the same shape; it has no gradient.

    Returns:
        Membranes of the same shape.

    Example:
        >>> leaky_membrane(torch.ones(3), torch.tensor([9.0, 0.5, 0.0])).tolist()
        [1.0, 1.5, 1.0]
    """
    return _LeakyMembrane.apply(current, keep)


class _LeakyMembrane(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, current: Tensor, keep: Tensor) -> Tensor:
        ctx.save_for_backward(keep)
        u = current.clone()
        for t in range(1, len(u)):
            u[t].addcmul_(keep[t], u[t - 1])
        return u

    @staticmethod
    @first_only("leaky_membrane", DIFFERENCES)
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (keep,) = ctx.saved_tensors
        into = grad.clone()
        for t in range(len(into) - 2, -1, -1):
            into[t].addcmul_(keep[t + 1], into[t + 1])
        return into, None
