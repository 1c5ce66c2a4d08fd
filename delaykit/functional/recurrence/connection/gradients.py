"""Gradients of a recurrent weight and its taps, once after the loop, from all inputs at once."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from delaykit.functional.dispatch import resolve
from delaykit.functional.recurrence.connection.base import Inputs, SparseTaps


def input_weight_gradient(grad: Tensor, x: Inputs) -> Tensor:
    """Multiply ``grad (time, batch, post)`` with all inputs to ``(post, pre)``, without a copy of the inputs."""
    multiply = resolve("recurrent_weight_gradient", grad.device)
    later: Tensor = multiply(grad[1:], x.spikes[:-1])
    return grad[0].t() @ x.start + later


def input_correlation(of: Literal["line", "synapse"], x: Inputs, grad: Tensor, taps: SparseTaps) -> Tensor:
    """Correlate all inputs with ``grad (time, neuron, batch)`` at every tap, without a copy of the inputs."""
    correlate = resolve(f"recurrent_{of}_correlation", grad.device)
    out: Tensor = correlate(x.spikes[:-1], grad, taps, 1)
    return out + correlate(x.start.unsqueeze(0), grad, taps) if x.start.any() else out
