"""Gradients of a recurrent weight and its taps, once after the loop, from all inputs at once."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from delaykit.functional.recurrence.connection.base import Inputs, SparseTaps


def input_weight_gradient(multiply: Callable[[Tensor, Tensor], Tensor], grad: Tensor, x: Inputs) -> Tensor:
    """Multiply ``grad (time, batch, post)`` with all inputs to ``(post, pre)``, without a copy of the inputs."""
    return grad[0].t() @ x.start + multiply(grad[1:], x.spikes[:-1])


def input_correlation(
    correlate: Callable[[Tensor, Tensor, SparseTaps, int], Tensor], x: Inputs, grad: Tensor, taps: SparseTaps
) -> Tensor:
    """Correlate all inputs with ``grad (time, neuron, batch)`` at every tap, without a copy of the inputs."""
    out = correlate(x.spikes[:-1], grad, taps, 1)
    return out + correlate(x.start.unsqueeze(0), grad, taps, 0) if x.start.any() else out
