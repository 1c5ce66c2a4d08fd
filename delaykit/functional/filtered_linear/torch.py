"""The sweeps over synapses that decay, in plain torch, for every device: backend ``torch``.

They know nothing of autograd. Nothing of size (time, batch, post, pre) is ever made.
"""

from __future__ import annotations

import torch
from torch import Tensor

CHUNK_NUMBERS = 1 << 20  # numbers of state that a chunk of post rows may take


def decay_filter(x: Tensor, decay: Tensor, weight: Tensor) -> Tensor:
    """Decay synapses: ``y[t, b, j] = sum_i weight[j, i] X_ji[t]``, ``X_ji[t] = decay[j, i] X_ji[t-1] + x[t, b, i]``.

    Args:
        x: ``(time, batch, pre)``.
        decay: ``(post, pre)``.
        weight: ``(post, pre)``.
    """
    out = x.new_zeros(*x.shape[:2], weight.shape[0])
    for rows in _row_chunks(x, weight):
        state = x.new_zeros(x.shape[1], *weight[rows].shape)
        for step in range(x.shape[0]):
            state.mul_(decay[rows]).add_(x[step].unsqueeze(1))
            out[step, :, rows] = torch.einsum("bji,ji->bj", state, weight[rows])
    return out


def decay_filter_gradient(
    x: Tensor, y: Tensor, decay: Tensor, weight: Tensor, needs_grad_x: bool = True
) -> tuple[Tensor, Tensor, Tensor]:
    """Pull ``y``, the gradient of :func:`decay_filter`'s output, back to ``x``, ``decay`` and ``weight``.

    Backward sweep: ``P[t] = decay P[t+1] + y[t]``, ``grad_x[t] = sum_j weight P``. Forward sweep:
    ``E[t] = decay E[t-1] + X[t-1]``, ``grad_weight = sum y X``, ``grad_decay = weight sum y E``.
    The weight is factored out, and nothing is divided by the decay. Without ``needs_grad_x`` the gradient of ``x`` is
    empty.
    """
    grad_x, grad_decay, grad_weight = torch.zeros_like(x), torch.zeros_like(decay), torch.zeros_like(weight)
    for rows in _row_chunks(x, weight):
        later = x.new_zeros(x.shape[1], *weight[rows].shape)
        for step in range(x.shape[0] - 1, -1, -1) if needs_grad_x else ():
            later.mul_(decay[rows]).add_(y[step][:, rows].unsqueeze(-1))
            grad_x[step] += torch.einsum("bji,ji->bi", later, weight[rows])
        state, tangent = torch.zeros_like(later), torch.zeros_like(later)
        for step in range(x.shape[0]):
            tangent.mul_(decay[rows]).add_(state)
            state.mul_(decay[rows]).add_(x[step].unsqueeze(1))
            grad_decay[rows] += torch.einsum("bji,bj->ji", tangent, y[step][:, rows])
            grad_weight[rows] += torch.einsum("bji,bj->ji", state, y[step][:, rows])
    return grad_x if needs_grad_x else x.new_empty(0), grad_decay * weight, grad_weight


def _row_chunks(x: Tensor, weight: Tensor) -> list[slice]:
    rows = max(1, CHUNK_NUMBERS // max(1, x.shape[1] * weight.shape[1]))
    return [slice(start, start + rows) for start in range(0, weight.shape[0], rows)]
