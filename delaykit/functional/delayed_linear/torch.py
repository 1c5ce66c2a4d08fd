"""The sums over delayed synapses in plain torch, for every device: backend ``torch``.

Both are linear and know nothing of gradients; the operator calls the filter forwards, and with ``causal=False`` (the
anti-causal twin, ``y[t] = sum_m v_m x[t + k_m]``) backwards. Nothing of size (time, batch, post, pre) is ever made.
"""

from __future__ import annotations

import torch
from torch import Tensor


def synapse_filter(x: Tensor, index: Tensor, value: Tensor, causal: bool) -> Tensor:
    """Filter synapses: ``y[t, b, j] = sum_i sum_m value[m, j, i] x[t - index[m, j, i], b, i]``, one product a step.

    Args:
        x: ``(time, batch, pre)``.
        index: int64 ``(m, post, pre)``, steps >= 0.
        value: ``(m, post, pre)`` in the dtype of ``x``, the weight included.
        causal: False reads ``x[t + index]`` instead.
    """
    time = x.shape[0]
    out = x.new_zeros(time, x.shape[1], index.shape[1])
    for tau in index.unique().tolist():
        if tau >= time:
            break
        matrix = torch.where(index == tau, value, torch.zeros_like(value)).sum(0)
        read, write = (x[: time - tau], out[tau:]) if causal else (x[tau:], out[: time - tau])
        write += read @ matrix.T
    return out


def synapse_correlation(x: Tensor, y: Tensor, index: Tensor) -> Tensor:
    """Correlate synapses: ``c[m, j, i] = sum_{t, b} x[t - index[m, j, i], b, i] y[t, b, j]``, one product a step."""
    time = x.shape[0]
    out = torch.zeros_like(index, dtype=x.dtype)
    for tau in index.unique().tolist():
        if tau >= time:
            break
        product = y[tau:].flatten(0, 1).T @ x[: time - tau].flatten(0, 1)
        out = torch.where(index == tau, product, out)
    return out


def event_product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Multiply ``x (rows, pre)``, most of which may be 0, with ``weight (post, pre)``; add ``bias (post,)``."""
    return torch.nn.functional.linear(x, weight, bias)


def event_gradient(grad: Tensor, x: Tensor) -> Tensor:
    """Multiply ``grad (rows, post)`` with ``x (rows, pre)``, most of which may be 0, to ``(post, pre)``."""
    return grad.T @ x
