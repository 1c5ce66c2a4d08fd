"""What the weights and delays of synapses between two steps have come to, once after the loop."""

from __future__ import annotations

import functools
from types import ModuleType

import torch.nn.functional as F
from torch import Tensor

from delaykit.functional.compiled import array, in_threads

VECTOR_BYTES = 64
NEAR_BYTES = 32768  # of rows that all outputs read again and again, from the first cache


def between(kernels: ModuleType, x: Tensor, y: Tensor, cell: Tensor) -> Tensor:
    """Return ``sum_{t, b} x[t - k, b, j] y[t, b, i]`` for ``k = cell[i, j]`` and for the next step, ``(2, post, pre)``.

    Args:
        kernels: the compiled sums.
        x: ``(time, batch, pre)``.
        y: ``(time, batch, post)``.
        cell: ``(post, pre)``, int32, steps.
    """
    if not x.numel():
        return x.new_zeros(2, *cell.shape)
    x, y, together, ahead = x.detach().contiguous(), y.detach().contiguous(), kernels.TOGETHER, kernels.STEPS
    (time, batch, inputs), outputs = x.shape, len(cell)
    lanes = VECTOR_BYTES // x.element_size()
    pad = min(int(cell.max()) + 1, time) + 1
    near = (pad + ahead) * VECTOR_BYTES
    few = min(max(2, NEAR_BYTES // near // together), -(-inputs // together)) * together
    blocks = -(-inputs // few)
    stride = lanes * (pad + -(-time // ahead) * ahead | 1)  # odd: rows lie in different parts of a cache
    source, target = (array(x.new_zeros(rows * stride)) for rows in (blocks * few, outputs))
    places = F.pad(cell, (0, blocks * few - inputs)).view(outputs, blocks, few).transpose(0, 1).contiguous()
    sums = x.new_zeros(2, *places.shape)
    for row in range(0, batch, lanes):
        kernels.lay_steps(array(x), row, pad, stride, lanes, source)
        kernels.lay_steps(array(y), row, 0, stride, lanes, target)
        operands = source, target, pad, time, stride, lanes, places.numpy(), *array(sums)
        in_threads(functools.partial(kernels.correlate_between, *operands), outputs, 2 * cell.numel() * time * lanes)
    return sums.transpose(1, 2).reshape(2, outputs, -1)[..., :inputs].contiguous()
