"""The sums over delayed synapses for CUDA, by Triton: backend ``gpu``. Sums have a fixed order: results repeat.

Same layout as on the CPU: a neuron's whole sequence is one row of ``time * batch`` numbers, so that a delay is an
offset, and a block of threads reads neighbouring numbers whatever the delay. This module imports Triton.
"""

# mypy: disallow-untyped-defs=False
from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 256


def synapse_filter(x: Tensor, index: Tensor, value: Tensor, causal: bool) -> Tensor:
    """Filter synapses; see :func:`delaykit.functional.delayed_linear.torch.synapse_filter`."""
    time, batch, pre = x.shape
    taps, post, _ = index.shape
    rows, index, value = _rows(x), index.contiguous(), value.contiguous()
    out = x.new_zeros(post, time * batch)
    if x.numel():
        sizes = (time * batch, batch, post, pre, -1 if causal else 1)
        grid = (post, triton.cdiv(time * batch, BLOCK))
        filter_synapses[grid](rows, index, value, out, *sizes, TAPS=taps, BLOCK=BLOCK)
    return out.T.reshape(time, batch, post)


def synapse_correlation(x: Tensor, y: Tensor, index: Tensor) -> Tensor:
    """Correlate synapses; see :func:`delaykit.functional.delayed_linear.torch.synapse_correlation`."""
    time, batch, pre = x.shape
    taps, post, _ = index.shape
    index = index.contiguous()
    out = torch.zeros_like(index, dtype=x.dtype)
    if x.numel():
        sizes = (time * batch, batch, post, pre)
        correlate_synapses[(post, pre)](_rows(x), _rows(y), index, out, *sizes, TAPS=taps, BLOCK=BLOCK)
    return out


def event_product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Multiply; see :func:`delaykit.functional.delayed_linear.torch.event_product`."""
    return torch.nn.functional.linear(x, weight, bias)


def event_gradient(grad: Tensor, x: Tensor) -> Tensor:
    """Multiply; see :func:`delaykit.functional.delayed_linear.torch.event_gradient`."""
    return grad.T @ x


def _rows(x: Tensor) -> Tensor:
    return x.flatten(0, 1).T.contiguous()


@triton.jit
def filter_synapses(x, index, value, out, length, batch, post, pre, SIGN, TAPS: tl.constexpr, BLOCK: tl.constexpr):
    """``out[j, n] = sum_{m, i} value[m, j, i] x[i, n + SIGN index[m, j, i] batch]`` on rows of ``length`` numbers."""
    row = tl.program_id(0).to(tl.int64)
    here = tl.program_id(1).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros([BLOCK], dtype=out.dtype.element_ty)
    line = x  # moves from row to row: neuron * length may exceed 32 bits
    for neuron in range(pre):
        for m in range(TAPS):
            synapse = (m * post + row) * pre + neuron
            weight = tl.load(value + synapse)
            if weight != 0:
                source = here + SIGN * batch * tl.load(index + synapse)
                seen = (here < length) & (source >= 0) & (source < length)
                total += weight * tl.load(line + source, mask=seen, other=0.0)
        line += length
    tl.store(out + row * length + here, total, mask=here < length)


@triton.jit
def correlate_synapses(x, y, index, out, length, batch, post, pre, TAPS: tl.constexpr, BLOCK: tl.constexpr):
    """``out[m, j, i] = sum_n x[i, n - index[m, j, i] batch] y[j, n]`` on rows of ``length`` numbers."""
    row, neuron = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    for m in range(TAPS):
        synapse = (m * post + row) * pre + neuron
        shift = batch * tl.load(index + synapse)
        total = tl.zeros([BLOCK], dtype=out.dtype.element_ty)
        for begin in range(0, length, BLOCK):
            here = begin + tl.arange(0, BLOCK).to(tl.int64)
            seen = (here < length) & (here >= shift)
            late = tl.load(y + row * length + here, mask=seen, other=0.0)
            total += late * tl.load(x + neuron * length + here - shift, mask=seen, other=0.0)
        tl.store(out + synapse, tl.sum(total, 0))
