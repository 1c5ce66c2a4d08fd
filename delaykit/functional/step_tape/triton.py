"""The inner loops of a tape for CUDA, by Triton: backend ``gpu``. Sums have a fixed order: results repeat.

Copying a step into a recording and adding a tent are one kernel each in plain torch already. It imports Triton.
"""

# mypy: disallow-untyped-defs=False
from __future__ import annotations

from typing import Any

import triton
import triton.language as tl
from torch import Tensor

BLOCK = 256


def tape_lines(
    rows: Tensor, row: int, offset: Tensor, value: Tensor, out: Tensor, kept: dict[str, Any] | None = None
) -> None:
    """Read a step of every channel; see :func:`delaykit.functional.step_tape.torch.tape_lines`."""
    channels, _, chunk = rows.shape
    offset, value = offset.contiguous(), value.contiguous()
    target = out.new_empty(channels, 1, chunk)
    if target.numel():
        _read[(channels, 1, triton.cdiv(chunk, BLOCK))](
            rows, offset, value, target, row, channels, chunk, *rows.stride(), *target.stride(), TAPS=len(offset),
            BLOCK=BLOCK,
        )  # fmt: skip
    out.copy_(target.view(out.shape))


def tape_series(rows: Tensor, start: int, offset: Tensor, value: Tensor, out: Tensor) -> None:
    """Do the same for all steps from ``start`` on; see :func:`delaykit.functional.step_tape.torch.tape_series`."""
    channels, steps, chunk = out.shape
    offset, value = offset.contiguous(), value.contiguous()
    if out.numel():
        _read[(channels, steps, triton.cdiv(chunk, BLOCK))](
            rows, offset, value, out, start, channels, chunk, *rows.stride(), *out.stride(), TAPS=len(offset),
            BLOCK=BLOCK,
        )  # fmt: skip


def tape_synapses(
    rows: Tensor, row: int, offset: Tensor, value: Tensor, out: Tensor, kept: dict[str, Any] | None = None
) -> None:
    """Read a step through synapses; see :func:`delaykit.functional.step_tape.torch.tape_synapses`."""
    sources, _, chunk = rows.shape
    _, outputs, taps = value.shape
    target = value.new_zeros(outputs, chunk)
    if target.numel() and value.numel():
        _read_synapses[(outputs, triton.cdiv(chunk, BLOCK))](
            rows, offset.contiguous(), value.contiguous(), target, row, sources, outputs, chunk, *rows.stride(),
            TAPS=taps, BLOCK=BLOCK,
        )  # fmt: skip
    out.copy_(target.view(out.shape))


def tape_correlation(rows: Tensor, gradients: Tensor, index: Tensor) -> Tensor:
    """Correlate each channel; see :func:`delaykit.functional.step_tape.torch.tape_correlation`."""
    channels, steps, chunk = rows.shape
    out = rows.new_zeros(index.shape)
    if rows.numel() and index.numel():
        _correlate[(len(index), channels)](
            rows, gradients, index.contiguous(), out, steps, channels, chunk, *rows.stride(), *gradients.stride(),
            BLOCK=BLOCK,
        )  # fmt: skip
    return out


@triton.jit
def _read(rows, offset, value, out, start, channels, chunk, channel_jump, step_jump, jump, out_channel, out_step,
          out_jump, TAPS: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip
    """``out[c, t] = sum_m value[m, c] rows[c, start + t + offset[m, c]]``."""
    channel, step = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    here = tl.program_id(2).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = here < chunk
    total = tl.zeros([BLOCK], dtype=value.dtype.element_ty)
    for m in range(TAPS):
        source = start + step + tl.load(offset + m * channels + channel)
        weight = tl.load(value + m * channels + channel)
        read = tl.load(rows + channel * channel_jump + source * step_jump + here * jump, mask=inside, other=0.0)
        total += weight * read.to(value.dtype.element_ty)
    tl.store(out + channel * out_channel + step * out_step + here * out_jump, total, mask=inside)


@triton.jit
def _read_synapses(rows, offset, value, out, row, sources, outputs, chunk, channel_jump, step_jump, jump,
                   TAPS: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip
    """``out[a] = sum_{b, m} value[b, a, m] rows[b, row + offset[b, a, m]]``."""
    output = tl.program_id(0).to(tl.int64)
    here = tl.program_id(1).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = here < chunk
    total = tl.zeros([BLOCK], dtype=value.dtype.element_ty)
    for b in range(sources):
        line = tl.full([], 1, tl.int64) * b
        for m in range(TAPS):
            synapse = (line * outputs + output) * TAPS + m
            weight = tl.load(value + synapse)
            if weight != 0:
                place = line * channel_jump + (row + tl.load(offset + synapse)) * step_jump + here * jump
                total += weight * tl.load(rows + place, mask=inside, other=0.0).to(value.dtype.element_ty)
    tl.store(out + output * chunk + here, total, mask=inside)


@triton.jit
def _correlate(rows, gradients, index, out, steps, channels, chunk, channel_jump, step_jump, jump, grad_channel,
               grad_step, grad_jump, BLOCK: tl.constexpr):  # fmt: skip
    """``out[m, c] = sum_t gradients[c, t] . rows[c, t - index[m, c]]``; none where that is before 0."""
    m, channel = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    lag = tl.load(index + m * channels + channel)
    total = tl.zeros([BLOCK], dtype=rows.dtype.element_ty)
    for begin in range(0, steps * chunk, BLOCK):
        here = begin + tl.arange(0, BLOCK).to(tl.int64)
        t, n = here // chunk, here % chunk
        seen = (t < steps) & (t >= lag)
        late = tl.load(gradients + channel * grad_channel + t * grad_step + n * grad_jump, mask=seen, other=0.0)
        total += late * tl.load(rows + channel * channel_jump + (t - lag) * step_jump + n * jump, mask=seen, other=0.0)
    tl.store(out + m * channels + channel, tl.sum(total, 0))
