"""Gradients of a rollout's weight and taps, once after the loop: products and correlations over time and batch."""

from __future__ import annotations

import torch
from torch import Tensor

from delaykit.functional.rollout_delay import Sparse
from delaykit.functional.rollout_kernels import correlate, correlate_sparse, sparse_weight_gradient, unroll


def weight_gradient(g: Tensor, x: Tensor, compiled: bool) -> Tensor:
    """Multiply ``g (time, batch, post)`` with ``x (time, batch, pre)`` to ``(post, pre)``."""
    g, x = g.flatten(0, 1), x.flatten(0, 1)
    if compiled:
        out = g.new_zeros(x.shape[1], g.shape[1])
        if sparse_weight_gradient(g.numpy(), x.numpy(), out.numpy()):
            return out.t().contiguous()
    return g.t() @ x


def correlate_lines(x: Tensor, g: Tensor, taps: Sparse, compiled: bool) -> Tensor:
    """Return ``sum_{t, b} x[t - index, b, n] g[t, n, b]``, shape of the taps.

    Args:
        x: inputs ``(time, batch, neuron)``.
        g: gradients of the filtered inputs ``(time, neuron, batch)``.
        taps: ``(m, 1, neuron)`` or ``(m, neuron, 1)``.
        compiled: whether to run the compiled loops.
    """
    steps, batch, _ = x.shape
    index, rows = taps.index.flatten(1).contiguous(), _summed(g, taps, compiled)
    out = rows.new_zeros(index.shape)
    if compiled and correlate_sparse(x.flatten(0, 1).numpy(), rows.numpy(), batch, index.numpy(), out.numpy()):
        return out.view(taps.index.shape)
    source_rows = _by_neuron(x).to(rows.dtype)
    if compiled:
        paired = out.new_empty(index.shape[1], 1, len(index))
        packed = index.t().unsqueeze(1).contiguous()
        correlate(source_rows.numpy(), rows.numpy(), batch, packed.numpy(), True, paired.numpy())
        return paired.permute(2, 1, 0).reshape(taps.index.shape)
    time = torch.arange(steps, device=x.device)
    for m in range(len(index)):
        source = time - index[m].unsqueeze(1)
        past = source_rows.unflatten(1, (steps, batch))
        past = past.gather(1, source.clamp(min=0).unsqueeze(-1).expand(-1, -1, batch)) * (source >= 0).unsqueeze(-1)
        out[m] = (past * rows.view_as(past)).sum((1, 2))
    return out.view(taps.index.shape)


def correlate_synapses(x: Tensor, g: Tensor, taps: Sparse, compiled: bool) -> Tensor:
    """Return ``sum_{t, b} x[t - index[m, i, j], b, j] g[t, i, b]``, ``(m, post, pre)``, layouts as above."""
    steps, batch, _ = x.shape
    rows = _summed(g, taps, compiled)
    source_rows = _by_neuron(x).to(rows.dtype)
    if compiled:
        packed = taps.index.permute(1, 2, 0).to(torch.int32).contiguous()
        out = rows.new_empty(packed.shape)
        correlate(source_rows.numpy(), rows.numpy(), batch, packed.numpy(), False, out.numpy())
        return out.permute(2, 0, 1)
    out = rows.new_zeros(taps.index.shape)
    for lag in torch.unique(taps.index).tolist():
        if lag < steps:
            product = rows[:, lag * batch :] @ source_rows[:, : (steps - lag) * batch].T
            out = torch.where(taps.index == lag, product, out)
    return out


def _by_neuron(x: Tensor) -> Tensor:
    """Turn ``(time, batch, neuron)`` into ``(neuron, time batch)``."""
    return x.flatten(0, 1).t().contiguous()


def _summed(g: Tensor, taps: Sparse, compiled: bool) -> Tensor:
    """Turn ``(time, neuron, batch)`` into ``(neuron, time batch)``; order 2: in float64, twice summed from the end."""
    steps, neurons, batch = g.shape
    dtype = torch.float64 if taps.order else g.dtype
    if compiled:
        out = g.new_empty((neurons, steps * batch), dtype=dtype)
        unroll(g.numpy(), taps.order > 0, out.numpy())
        return out
    g = g.to(dtype)
    for _ in range(taps.order):
        g = g.flip(0).cumsum(0).flip(0)
    return g.transpose(0, 1).flatten(1)
