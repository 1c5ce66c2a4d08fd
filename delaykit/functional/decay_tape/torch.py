"""One step of synapses that decay, in plain torch, for every device: backend ``torch``."""

from __future__ import annotations

import torch
from torch import Tensor


def decay_step(state: Tensor, x: Tensor, decay: Tensor, weight: Tensor) -> Tensor:
    """Read ``y[b, j] = sum_i weight[i, j] X[b, i, j]``, then move on in place: ``X = decay X + x``.

    Args:
        state: X, ``(batch, pre, post)``.
        x: ``(batch, pre)``.
        decay: ``(pre, post)``.
        weight: ``(pre, post)``.
    """
    out = torch.einsum("bij,ij->bj", state, weight)
    state.mul_(decay).add_(x.unsqueeze(-1))
    return out


def decay_step_back(
    later: Tensor, slope: Tensor, y: Tensor | None, x: Tensor, decay: Tensor, weight: Tensor, grad_decay: Tensor,
    grad_weight: Tensor,
) -> Tensor:  # fmt: skip
    """Give the gradient of ``x``, add to those of decay and weight, then move back in place.

    ``grad_x = sum_j weight P``, ``grad_weight += x P``, ``grad_decay += x Q`` (still without its factor weight), then
    ``Q = P + decay Q`` and ``P = y + decay P``.

    Args:
        later: P, ``(batch, pre, post)``.
        slope: Q, ``(batch, pre, post)``.
        y: gradient of the step's output, ``(batch, post)``; None for none.
        x: the step's input, ``(batch, pre)``.
        decay: ``(pre, post)``.
        weight: ``(pre, post)``.
        grad_decay: ``(pre, post)``, added to.
        grad_weight: ``(pre, post)``, added to.
    """
    grad_x = torch.einsum("bij,ij->bi", later, weight)
    grad_weight += torch.einsum("bij,bi->ij", later, x)
    grad_decay += torch.einsum("bij,bi->ij", slope, x)
    slope.mul_(decay).add_(later)
    later.mul_(decay)
    if y is not None:
        later += y.unsqueeze(1)
    return grad_x
