"""The Triton kernels of backend ``gpu``. Import this module only where Triton is installed; ``gpu.py`` does."""

# mypy: disallow-untyped-defs=False
from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def filter_channels(
    x, index, value, out, size, time, inner, channels, space, SIGN, TAPS: tl.constexpr, BLOCK: tl.constexpr
):
    """``out[t, b, c, s] = sum_m value[m, c] x[t + SIGN index[m, c], b, c, s]``; inner = numbers a step."""
    here = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = here < size
    step, channel = here // inner, here // space % channels
    total = tl.zeros([BLOCK], dtype=out.dtype.element_ty)
    for m in range(TAPS):
        shift = SIGN * tl.load(index + m * channels + channel, mask=inside, other=0)
        weight = tl.load(value + m * channels + channel, mask=inside, other=0.0)
        seen = inside & (step + shift >= 0) & (step + shift < time) & (weight != 0)
        total += weight * tl.load(x + here + shift * inner, mask=seen, other=0.0)
    tl.store(out + here, total, mask=inside)


@triton.jit
def correlate_channels(x, y, index, out, time, batch, channels, space, parts, BLOCK: tl.constexpr):
    """``out[m, c, part] = sum_{t, b, s} x[t - index[m, c], b, c, s] y[t, b, c, s]``, each part a share of the sum."""
    line, part = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    channel = line % channels
    shift = tl.load(index + line) * batch  # a step is `batch` places of this channel
    places = time * batch
    total = tl.zeros([BLOCK], dtype=out.dtype.element_ty)
    for begin in range(part * BLOCK, places * space, parts * BLOCK):
        here = begin + tl.arange(0, BLOCK).to(tl.int64)
        place = here // space
        seen = (place < places) & (place >= shift)
        address = (place * channels + channel) * space + here % space
        late = tl.load(y + address, mask=seen, other=0.0)
        total += late * tl.load(x + address - shift * channels * space, mask=seen, other=0.0)
    tl.store(out + line * parts + part, tl.sum(total, 0))


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
