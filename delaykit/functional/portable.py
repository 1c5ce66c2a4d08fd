"""The operators' inner sums in plain torch, for every device: backend ``torch``.

All are linear and know nothing of gradients; the operators call them forwards, and with ``causal=False`` (the
anti-causal twin, ``y[t] = sum_m v_m x[t + k_m]``) backwards. Nothing of size (time, batch, post, pre) is ever made.
"""

from __future__ import annotations

import torch
from torch import Tensor

from delaykit.functional.dispatch import register

CHUNK_NUMBERS = 1 << 20  # numbers of state that a chunk of post rows may take


@register("tap_filter", "torch")
def tap_filter(x: Tensor, index: Tensor, value: Tensor, causal: bool) -> Tensor:
    """Filter channels: ``y[t, b, c, s] = sum_m value[m, c] x[t - index[m, c], b, c, s]``.

    Args:
        x: ``(time, batch, channel, space)``.
        index: int64 ``(m, channel)``, steps >= 0.
        value: ``(m, channel)`` in the dtype of ``x``.
        causal: False reads ``x[t + index]`` instead.
    """
    out = torch.zeros_like(x)
    for m in range(index.shape[0]):
        rows, weight = _source_rows(x.shape[0], index[m], value[m], causal)
        out.addcmul_(x.gather(0, rows.expand(-1, x.shape[1], -1, x.shape[3])), weight)
    return out


@register("tap_correlation", "torch")
def tap_correlation(x: Tensor, y: Tensor, index: Tensor) -> Tensor:
    """Correlate channels: ``c[m, c] = sum_{t, b, s} x[t - index[m, c], b, c, s] y[t, b, c, s]``."""
    out = []
    for m in range(index.shape[0]):
        rows, inside = _source_rows(x.shape[0], index[m], torch.ones_like(index[m], dtype=x.dtype), True)
        shifted = x.gather(0, rows.expand(-1, x.shape[1], -1, x.shape[3]))
        out.append((shifted.mul_(inside) * y).sum((0, 1, 3)))
    return torch.stack(out)


def _source_rows(time: int, index: Tensor, value: Tensor, causal: bool) -> tuple[Tensor, Tensor]:
    """Find the time each output step reads, and its weight (0 outside the sequence): ``(time, 1, channel, 1)``."""
    steps = torch.arange(time, device=index.device).unsqueeze(1)
    rows = steps - index if causal else steps + index
    inside = (rows >= 0) & (rows < time)
    weight = torch.where(inside, value, torch.zeros_like(value))
    return rows.clamp(0, max(time - 1, 0))[:, None, :, None], weight[:, None, :, None]


@register("synapse_filter", "torch")
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


@register("synapse_correlation", "torch")
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


@register("running_sum", "torch")
def running_sum(x: Tensor, decay: Tensor | None = None, reverse: bool = False) -> Tensor:
    """Accumulate over time: ``y[t] = decay y[t - 1] + x[t]``; ``reverse`` runs from the last step to the first.

    Args:
        x: ``(time, ...)``.
        decay: broadcasts with ``x[0]``; None: 1.
        reverse: ``y[t] = decay y[t + 1] + x[t]`` instead.
    """
    if decay is None:
        return x.flip(0).cumsum(0).flip(0) if reverse else x.cumsum(0)
    out = x.clone(memory_format=torch.contiguous_format)
    steps = range(x.shape[0] - 2, -1, -1) if reverse else range(1, x.shape[0])
    for step in steps:
        before = out[step + 1] if reverse else out[step - 1]
        out[step] += decay * before
    return out


@register("decay_filter", "torch")
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


@register("decay_filter_gradient", "torch")
def decay_filter_gradient(
    x: Tensor, y: Tensor, decay: Tensor, weight: Tensor, into_x: bool = True
) -> tuple[Tensor, Tensor, Tensor]:
    """Pull ``y``, the gradient of :func:`decay_filter`'s output, back to ``x``, ``decay`` and ``weight``.

    Backward sweep: ``P[t] = decay P[t+1] + y[t]``, ``dx[t] = sum_j weight P``. Forward sweep:
    ``E[t] = decay E[t-1] + X[t-1]``, ``dweight = sum y X``, ``ddecay = weight sum y E``.
    The weight is factored out, and nothing is divided by the decay. Without ``into_x`` the gradient of ``x`` is empty.
    """
    grad_x, grad_decay, grad_weight = torch.zeros_like(x), torch.zeros_like(decay), torch.zeros_like(weight)
    for rows in _row_chunks(x, weight):
        later = x.new_zeros(x.shape[1], *weight[rows].shape)
        for step in range(x.shape[0] - 1, -1, -1) if into_x else ():
            later.mul_(decay[rows]).add_(y[step][:, rows].unsqueeze(-1))
            grad_x[step] += torch.einsum("bji,ji->bi", later, weight[rows])
        state, tangent = torch.zeros_like(later), torch.zeros_like(later)
        for step in range(x.shape[0]):
            tangent.mul_(decay[rows]).add_(state)
            state.mul_(decay[rows]).add_(x[step].unsqueeze(1))
            grad_decay[rows] += torch.einsum("bji,bj->ji", tangent, y[step][:, rows])
            grad_weight[rows] += torch.einsum("bji,bj->ji", state, y[step][:, rows])
    return grad_x if into_x else x.new_empty(0), grad_decay * weight, grad_weight


def _row_chunks(x: Tensor, weight: Tensor) -> list[slice]:
    rows = max(1, CHUNK_NUMBERS // max(1, x.shape[1] * weight.shape[1]))
    return [slice(start, start + rows) for start in range(0, weight.shape[0], rows)]
