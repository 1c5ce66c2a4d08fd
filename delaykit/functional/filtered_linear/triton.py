"""The sweeps over synapses that decay for CUDA, by Triton: backend ``gpu``. Sums have a fixed order: results repeat.

A program keeps the state of a block of synapses on the chip for the whole sequence. This module imports Triton.
"""

# mypy: disallow-untyped-defs=False
from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 128
ROWS = 8  # samples at a time, where a gradient is summed over the batch


def decay_filter(x: Tensor, decay: Tensor, weight: Tensor) -> Tensor:
    """Decay synapses; see :func:`delaykit.functional.filtered_linear.torch.decay_filter`."""
    x, decay, weight = x.contiguous(), decay.contiguous(), weight.contiguous()
    time, batch, pre = x.shape
    post = len(weight)
    out = x.new_zeros(time, batch, post)
    if out.numel() and pre:
        sizes = (time, batch, pre, post, pre, 1)
        filter_synapses[(batch, post)](x, decay, weight, out, *sizes, BLOCK=BLOCK, BACK=False)
    return out


def decay_filter_gradient(
    x: Tensor, y: Tensor, decay: Tensor, weight: Tensor, needs_grad_x: bool = True
) -> tuple[Tensor, Tensor, Tensor]:
    """Pull a gradient back; see :func:`delaykit.functional.filtered_linear.torch.decay_filter_gradient`."""
    x, y, decay, weight = x.contiguous(), y.contiguous(), decay.contiguous(), weight.contiguous()
    time, batch, pre = x.shape
    post = len(weight)
    grad_x = torch.zeros_like(x) if needs_grad_x else x.new_empty(0)
    grad_decay, grad_weight = torch.zeros_like(decay), torch.zeros_like(weight)
    if x.numel() and post:
        if needs_grad_x:  # the same sweep from the end, along the columns
            filter_synapses[(batch, pre)](
                y, decay, weight, grad_x, time, batch, post, pre, 1, pre, BLOCK=BLOCK, BACK=True
            )
        correlate_synapses[(post, triton.cdiv(pre, BLOCK))](
            x, y, decay, grad_decay, grad_weight, time, batch, pre, post, ROWS=ROWS, BLOCK=BLOCK
        )
    return grad_x, grad_decay * weight, grad_weight


@triton.jit
def filter_synapses(
    x, decay, weight, out, time, batch, inner, outer, jump, stride, BLOCK: tl.constexpr, BACK: tl.constexpr
):
    """``out[t, b, j] = sum_i weight[j, i] X[t, i]``, ``X[t] = decay X[t -+ 1] + x[t, b]``; j, i at jump, stride."""
    b, j = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    for begin in range(0, inner, BLOCK):
        i = begin + tl.arange(0, BLOCK)
        inside = i < inner
        keep = tl.load(decay + j * jump + i * stride, mask=inside, other=0.0)
        strength = tl.load(weight + j * jump + i * stride, mask=inside, other=0.0)
        state = tl.zeros([BLOCK], dtype=x.dtype.element_ty)
        for step in range(time):
            t = time - 1 - step if BACK else step
            row = t * batch + b
            state = keep * state + tl.load(x + row * inner + i, mask=inside, other=0.0)
            target = out + row * outer + j
            tl.store(target, tl.load(target) + tl.sum(strength * state, 0))


@triton.jit
def correlate_synapses(
    x, y, decay, grad_decay, grad_weight, time, batch, pre, post, ROWS: tl.constexpr, BLOCK: tl.constexpr
):
    """``grad_weight[j] = sum_{t, b} y X``, ``grad_decay[j] = sum_{t, b} y E``, ``E[t] = decay E[t-1] + X[t-1]``."""
    j, i = tl.program_id(0).to(tl.int64), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = i < pre
    keep = tl.load(decay + j * pre + i, mask=inside, other=0.0)[None, :]
    grad_weight_sum = tl.zeros([BLOCK], dtype=x.dtype.element_ty)
    grad_decay_sum = tl.zeros([BLOCK], dtype=x.dtype.element_ty)
    for begin in range(0, batch, ROWS):
        b = begin + tl.arange(0, ROWS).to(tl.int64)
        known = b < batch
        seen = known[:, None] & inside[None, :]
        state = tl.zeros([ROWS, BLOCK], dtype=x.dtype.element_ty)
        tangent = tl.zeros([ROWS, BLOCK], dtype=x.dtype.element_ty)
        for t in range(time):
            row = t * batch + b
            tangent = keep * tangent + state
            state = keep * state + tl.load(x + row[:, None] * pre + i[None, :], mask=seen, other=0.0)
            given = tl.load(y + row * post + j, mask=known, other=0.0)[:, None]
            grad_weight_sum += tl.sum(given * state, 0)
            grad_decay_sum += tl.sum(given * tangent, 0)
    tl.store(grad_weight + j * pre + i, grad_weight_sum, mask=inside)
    tl.store(grad_decay + j * pre + i, grad_decay_sum, mask=inside)
