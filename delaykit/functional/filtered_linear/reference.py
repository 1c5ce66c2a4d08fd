"""The judge of synapses that decay: loops as the definitions say, and plain autograd."""

from __future__ import annotations

import torch
from torch import Tensor


def filtered_linear(
    spikes: Tensor, weight: Tensor, decay: Tensor, bias: Tensor | None = None, leak: Tensor | None = None
) -> Tensor:
    """Let every synapse decay, step by step; see :func:`delaykit.functional.filtered_linear.filtered_linear`."""
    time, batch, pre = spikes.shape
    state = spikes.new_zeros(batch, weight.shape[0], pre, dtype=torch.result_type(spikes, weight))
    currents = []
    for step in range(time):
        before, state = state, decay * state + weight * spikes[step].unsqueeze(1)
        currents.append((state if leak is None else state - leak * before).sum(-1))
    current = torch.stack(currents) if currents else state.new_zeros(0, batch, weight.shape[0])
    return current if bias is None else current + bias


def decay_filter(x: Tensor, decay: Tensor, weight: Tensor) -> Tensor:
    """Decay synapses; see :func:`delaykit.functional.filtered_linear.torch.decay_filter`."""
    out = x.new_zeros(*x.shape[:2], weight.shape[0])
    for t in range(len(x)):
        for lag in range(t + 1):
            out[t] += x[t - lag] @ (weight * decay**lag).T
    return out


def decay_filter_gradient(
    x: Tensor, y: Tensor, decay: Tensor, weight: Tensor, needs_grad_x: bool = True
) -> tuple[Tensor, Tensor, Tensor]:
    """Differentiate term by term; see :func:`delaykit.functional.filtered_linear.torch.decay_filter_gradient`."""
    grad_x, grad_decay, grad_weight = torch.zeros_like(x), torch.zeros_like(decay), torch.zeros_like(weight)
    for t in range(len(x)):
        for lag in range(t + 1):
            product = y[t].T @ x[t - lag]
            grad_x[t - lag] += y[t] @ (weight * decay**lag)
            grad_weight += product * decay**lag
            if lag:
                grad_decay += product * weight * lag * decay ** (lag - 1)
    return grad_x if needs_grad_x else x.new_empty(0), grad_decay, grad_weight
