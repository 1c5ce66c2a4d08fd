"""One step of synapses that decay for CUDA, by Triton: backend ``gpu``. This module imports Triton."""

# mypy: disallow-untyped-defs=False
from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

BLOCK = 128


def decay_step(state: Tensor, x: Tensor, decay: Tensor, weight: Tensor) -> Tensor:
    """Read, then move on; see :func:`delaykit.functional.decay_tape.torch.decay_step`."""
    batch, pre, post = state.shape
    out = x.new_zeros(batch, post)
    if state.numel():
        step_synapses[(batch, triton.cdiv(post, BLOCK))](
            state, x.contiguous(), decay.contiguous(), weight.contiguous(), out, pre, post, BLOCK=BLOCK
        )
    return out


def decay_step_back(
    later: Tensor, slope: Tensor, y: Tensor | None, x: Tensor, decay: Tensor, weight: Tensor, grad_decay: Tensor,
    grad_weight: Tensor,
) -> Tensor:  # fmt: skip
    """Give the gradient of ``x``, move back; see :func:`delaykit.functional.decay_tape.torch.decay_step_back`."""
    batch, pre, post = later.shape
    grad_x = x.new_zeros(batch, pre)
    if later.numel():
        x, decay, weight = x.contiguous(), decay.contiguous(), weight.contiguous()
        pull_synapses[(batch, pre)](later, weight, grad_x, pre, post, BLOCK=BLOCK)
        step_synapses_back[(pre, triton.cdiv(post, BLOCK))](
            later, slope, x if y is None else y.contiguous(), x, decay, grad_decay, grad_weight, batch, pre, post,
            BLOCK=BLOCK, GIVEN=y is not None,
        )  # fmt: skip
    return grad_x


@triton.jit
def step_synapses(state, x, decay, weight, out, pre, post, BLOCK: tl.constexpr):
    """``out[b, j] = sum_i weight[i, j] X[b, i, j]``, then ``X = decay X + x``, for a block of j."""
    b, j = tl.program_id(0).to(tl.int64), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = j < post
    total = tl.zeros([BLOCK], dtype=out.dtype.element_ty)
    for i in range(pre):
        place = state + (b * pre + i) * post + j
        now = tl.load(place, mask=inside, other=0.0)
        total += tl.load(weight + i * post + j, mask=inside, other=0.0) * now
        keep = tl.load(decay + i * post + j, mask=inside, other=0.0)
        tl.store(place, keep * now + tl.load(x + b * pre + i), mask=inside)
    tl.store(out + b * post + j, total, mask=inside)


@triton.jit
def pull_synapses(later, weight, grad_x, pre, post, BLOCK: tl.constexpr):
    """``grad_x[b, i] = sum_j weight[i, j] P[b, i, j]``."""
    b, i = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    total = tl.zeros([BLOCK], dtype=later.dtype.element_ty)
    for begin in range(0, post, BLOCK):
        j = begin + tl.arange(0, BLOCK)
        strength = tl.load(weight + i * post + j, mask=j < post, other=0.0)
        total += strength * tl.load(later + (b * pre + i) * post + j, mask=j < post, other=0.0)
    tl.store(grad_x + b * pre + i, tl.sum(total, 0))


@triton.jit
def step_synapses_back(
    later, slope, y, x, decay, grad_decay, grad_weight, batch, pre, post, BLOCK: tl.constexpr, GIVEN: tl.constexpr
):
    """Add ``x P`` and ``x Q`` over the batch, then ``Q = P + decay Q`` and ``P = y + decay P``, for a block of j."""
    i, j = tl.program_id(0).to(tl.int64), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = j < post
    synapse = i * post + j
    keep = tl.load(decay + synapse, mask=inside, other=0.0)
    grad_weight_sum = tl.load(grad_weight + synapse, mask=inside, other=0.0)
    grad_decay_sum = tl.load(grad_decay + synapse, mask=inside, other=0.0)
    for b in range(batch):
        place = (b * pre + i) * post + j
        p = tl.load(later + place, mask=inside, other=0.0)
        q = tl.load(slope + place, mask=inside, other=0.0)
        spike = tl.load(x + b * pre + i)
        grad_weight_sum += spike * p
        grad_decay_sum += spike * q
        tl.store(slope + place, p + keep * q, mask=inside)
        p = keep * p
        if GIVEN:
            p += tl.load(y + b * post + j, mask=inside, other=0.0)
        tl.store(later + place, p, mask=inside)
    tl.store(grad_weight + synapse, grad_weight_sum, mask=inside)
    tl.store(grad_decay + synapse, grad_decay_sum, mask=inside)
