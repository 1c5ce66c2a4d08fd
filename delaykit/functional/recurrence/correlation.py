"""Gradients of a rollout's weight and taps, once after the loop: products and correlations over time and batch."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from delaykit.functional.recurrence.delay import Sparse
from delaykit.functional.recurrence.kernels import correlate, list_events, sparse_weight_gradient

FEW = 0.1  # share of inputs that are not zero up to which a correlation for every synapse is faster by events


class Inputs(NamedTuple):
    """All inputs of a recurrent connection: the spikes before the first step, then those of every step but the last."""

    start: Tensor
    spikes: Tensor


def recurrent_weight_gradient(g: Tensor, x: Inputs, compiled: bool) -> Tensor:
    """Do what :func:`weight_gradient` does, without a copy of the inputs."""
    return g[0].t() @ x.start + weight_gradient(g[1:], x.spikes[:-1], compiled)


def weight_gradient(g: Tensor, x: Tensor, compiled: bool) -> Tensor:
    """Multiply ``g (time, batch, post)`` with ``x (time, batch, pre)`` to ``(post, pre)``."""
    g, x = g.flatten(0, 1), x.flatten(0, 1)
    if compiled:
        out = g.new_zeros(x.shape[1], g.shape[1])
        if sparse_weight_gradient(g.numpy(), x.numpy(), out.numpy()):
            return out.t().contiguous()
    return g.t() @ x


def recurrent_correlation(synapses: bool, x: Inputs, g: Tensor, taps: Sparse, compiled: bool) -> Tensor:
    """Do what :func:`correlate_synapses` or :func:`correlate_lines` does, without a copy of the inputs."""
    correlation = correlate_synapses if synapses else correlate_lines
    out = correlation(x.spikes[:-1], g, taps, compiled, 1)
    return out + correlation(x.start.unsqueeze(0), g, taps, compiled) if x.start.any() else out


def correlate_lines(x: Tensor, g: Tensor, taps: Sparse, compiled: bool, late: int = 0) -> Tensor:
    """Return ``sum_{t, b} x[t - late - index, b, n] g[t, n, b]``, shape of the taps.

    Args:
        x: inputs ``(time - late, batch, neuron)``, or fewer steps.
        g: gradients of the filtered inputs ``(time, neuron, batch)``.
        taps: ``(m, 1, neuron)`` or ``(m, neuron, 1)``.
        compiled: whether to run the compiled loops.
        late: number of steps by which x comes late.
    """
    index = taps.index.flatten(1)
    if compiled:
        out = _correlate(x, g, taps, index.t().unsqueeze(1), True, late)
        return out.permute(2, 1, 0).reshape(taps.index.shape)
    past, now = _rows(x.transpose(1, 2), taps, False), _rows(g, taps, True)
    out, time = now.new_zeros(index.shape), torch.arange(len(g), device=x.device)
    for m in range(len(index) if len(x) else 0):
        source = (time - late - index[m].unsqueeze(1)).unsqueeze(-1)
        inside = (source >= 0) & (source < len(x))
        read = past.gather(1, source.clamp(0, len(x) - 1).expand_as(now))
        out[m] = (read * inside * now).sum((1, 2))
    return out.view(taps.index.shape)


def correlate_synapses(x: Tensor, g: Tensor, taps: Sparse, compiled: bool, late: int = 0) -> Tensor:
    """Return ``sum_{t, b} x[t - late - index[m, i, j], b, j] g[t, i, b]``, ``(m, post, pre)``; see above."""
    if compiled and torch.count_nonzero(x) <= FEW * x.numel():
        return _correlate(x, g, taps, taps.index.permute(1, 2, 0), False, late).permute(2, 0, 1)
    past, now = _rows(x.transpose(1, 2), taps, False), _rows(g, taps, True)
    out = now.new_zeros(taps.index.shape)
    for lag in torch.unique(taps.index).tolist():
        steps = min(len(x), len(g) - late - lag)
        if steps > 0:
            read = now[:, late + lag : late + lag + steps]
            out = torch.where(taps.index == lag, read.flatten(1) @ past[:, :steps].flatten(1).T, out)
    return out


def _correlate(x: Tensor, g: Tensor, taps: Sparse, index: Tensor, paired: bool, late: int) -> Tensor:
    """Run the compiled correlation for ``index (post, 1 or pre, m)``."""
    out = g.new_zeros(index.shape, dtype=torch.float64 if taps.order else g.dtype)
    events = list_events(x.flatten(0, 1).numpy())
    packed = index.to(torch.int32).contiguous()
    correlate(*events, late, g.numpy(), taps.order > 0, packed.numpy(), paired, out.numpy())
    return out


def _rows(x: Tensor, taps: Sparse, summed: bool) -> Tensor:
    """Turn ``(time, neuron, batch)`` into ``(neuron, time, batch)``; order 2: in float64, ``summed`` from the end."""
    x = x.to(torch.float64) if taps.order else x
    for _ in range(taps.order if summed else 0):
        x = x.flip(0).cumsum(0).flip(0)
    return x.transpose(0, 1).contiguous()
