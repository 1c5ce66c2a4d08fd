"""The judge of one step of synapses that decay: synapse by synapse, as the equations say."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch
from torch import Tensor


def decay_step(state: Tensor, x: Tensor, decay: Tensor, weight: Tensor) -> Tensor:
    """Move on one step; see :func:`delaykit.functional.decay_tape.torch.decay_step`."""
    out = x.new_zeros(len(x), weight.shape[1])
    for i, j in _synapses(weight):
        out[:, j] += weight[i, j] * state[:, i, j]
        state[:, i, j] = decay[i, j] * state[:, i, j] + x[:, i]
    return out


def decay_step_back(
    later: Tensor, slope: Tensor, y: Tensor | None, x: Tensor, decay: Tensor, weight: Tensor, grad_decay: Tensor,
    grad_weight: Tensor,
) -> Tensor:  # fmt: skip
    """Move back one step; see :func:`delaykit.functional.decay_tape.torch.decay_step_back`."""
    grad_x = torch.zeros_like(x)
    for i, j in _synapses(weight):
        p, q = later[:, i, j].clone(), slope[:, i, j].clone()
        grad_x[:, i] += weight[i, j] * p
        grad_weight[i, j] += (x[:, i] * p).sum()
        grad_decay[i, j] += (x[:, i] * q).sum()
        slope[:, i, j] = p + decay[i, j] * q
        later[:, i, j] = decay[i, j] * p + (0 if y is None else y[:, j])
    return grad_x


def _synapses(weight: Tensor) -> Iterator[tuple[int, ...]]:
    return itertools.product(*map(range, weight.shape))
