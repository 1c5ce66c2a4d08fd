"""The judge of delayed synapses: loops as the definitions say, and plain autograd."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch
from torch import Tensor

from delaykit.functional.reference import causal_convolution
from delaykit.functional.taps import Taps


def delayed_linear(spikes: Tensor, weight: Tensor, taps: Taps, bias: Tensor | None = None) -> Tensor:
    """Delay every synapse; see :func:`delaykit.functional.delayed_linear.delayed_linear`."""
    response = weight.unsqueeze(-1) * taps.response(spikes.shape[0])
    current = causal_convolution(spikes.to(response.dtype), response).to(torch.result_type(spikes, weight))
    return current if bias is None else current + bias


def synapse_filter(x: Tensor, index: Tensor, value: Tensor, causal: bool) -> Tensor:
    """Filter synapses; see :func:`delaykit.functional.delayed_linear.torch.synapse_filter`."""
    out = x.new_zeros(*x.shape[:2], index.shape[1])
    for m, j, i in _synapses(index):
        delay = int(index[m, j, i])
        for t in range(delay, len(x)):
            read, write = (t - delay, t) if causal else (t, t - delay)
            out[write, :, j] += value[m, j, i] * x[read, :, i]
    return out


def synapse_correlation(x: Tensor, y: Tensor, index: Tensor) -> Tensor:
    """Correlate synapses; see :func:`delaykit.functional.delayed_linear.torch.synapse_correlation`."""
    out = torch.zeros_like(index, dtype=x.dtype)
    for m, j, i in _synapses(index):
        delay = int(index[m, j, i])
        for t in range(delay, len(x)):
            out[m, j, i] += (x[t - delay, :, i] * y[t, :, j]).sum()
    return out


def event_product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Multiply; see :func:`delaykit.functional.delayed_linear.torch.event_product`."""
    out = torch.stack([(row * weight).sum(1) for row in x])
    return out if bias is None else out + bias


def event_gradient(grad: Tensor, x: Tensor) -> Tensor:
    """Multiply; see :func:`delaykit.functional.delayed_linear.torch.event_gradient`."""
    return torch.stack([(column.unsqueeze(1) * x).sum(0) for column in grad.T])


def _synapses(index: Tensor) -> Iterator[tuple[int, ...]]:
    return itertools.product(*map(range, index.shape))
