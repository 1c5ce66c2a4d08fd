"""The sums of a delay line for CUDA, by Triton: backend ``gpu``. Sums have a fixed order: results repeat.

This module imports Triton, so it is imported only where an operator runs on such a device.
"""

# mypy: disallow-untyped-defs=False
from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 256
PARTS = 64  # shares of a channel's correlation, as channels alone may be too few to fill the device


def tap_filter(x: Tensor, index: Tensor, value: Tensor, causal: bool) -> Tensor:
    """Filter channels; see :func:`delaykit.functional.delay_line.torch.tap_filter`."""
    x, index, value = x.contiguous(), index.contiguous(), value.contiguous()
    out = torch.zeros_like(x)
    time, batch, channels, space = x.shape
    if x.numel():
        sizes = (x.numel(), time, batch * channels * space, channels, space, -1 if causal else 1)
        grid = (triton.cdiv(x.numel(), BLOCK),)
        filter_channels[grid](x, index, value, out, *sizes, TAPS=len(index), BLOCK=BLOCK)
    return out


def tap_correlation(x: Tensor, y: Tensor, index: Tensor) -> Tensor:
    """Correlate channels; see :func:`delaykit.functional.delay_line.torch.tap_correlation`."""
    x, y, index = x.contiguous(), y.contiguous(), index.contiguous()
    time, batch, channels, space = x.shape
    parts = max(1, min(PARTS, triton.cdiv(time * batch * space, BLOCK)))
    out = x.new_zeros(*index.shape, parts)
    if x.numel():
        sizes = (time, batch, channels, space, parts)
        correlate_channels[(index.numel(), parts)](x, y, index, out, *sizes, BLOCK=BLOCK)
    return out.sum(-1)


def tap_gradients(x: Tensor, y: Tensor, index: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Go back through a filter; see :func:`delaykit.functional.delay_line.torch.tap_gradients`."""
    return tap_filter(y, index, value, False), tap_correlation(x, y, index)


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
