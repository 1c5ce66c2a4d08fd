"""Running sums for CUDA, by Triton: backend ``gpu``. This module imports Triton."""

# mypy: disallow-untyped-defs=False
from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 256


def running_sum(x: Tensor, decay: Tensor | None = None, reverse: bool = False) -> Tensor:
    """Accumulate over time; see :func:`delaykit.functional.running_sum.torch.running_sum`."""
    out = x.clone(memory_format=torch.contiguous_format)
    if x.numel():
        factor = x.new_ones(()) if decay is None else decay
        factor = factor.expand(x.shape[1:]).reshape(-1).contiguous()
        width = factor.numel()
        accumulate[(triton.cdiv(width, BLOCK),)](out, factor, len(x), width, BLOCK=BLOCK, REVERSE=reverse)
    return out


@triton.jit
def accumulate(rows, decay, time, width, BLOCK: tl.constexpr, REVERSE: tl.constexpr):
    """Run ``rows[t] += decay rows[t - 1]`` in place, or from the last step to the first."""
    here = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = here < width
    factor = tl.load(decay + here, mask=inside, other=0.0)
    total = tl.zeros([BLOCK], dtype=rows.dtype.element_ty)
    for passed in range(time):
        step = (time - 1 - passed if REVERSE else passed) + tl.zeros([BLOCK], dtype=tl.int64)
        total = factor * total + tl.load(rows + step * width + here, mask=inside, other=0.0)
        tl.store(rows + step * width + here, total, mask=inside)
