"""Inner loops of a tape, over histories ``(channel, time, chunk)``; backends ``torch`` and ``cpu`` (Numba).

Offsets are steps, negative into the past: one kernel reads the past for an output and the future for a gradient.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from delaykit.functional.compiled import compiled
from delaykit.functional.dispatch import register


@register("tape_store", "torch")
def store(rows: Tensor, row: int, x: Tensor) -> None:
    """Copy ``x (batch, channel, *space)`` into ``rows[:, row]``."""
    turned = x.transpose(0, 1)
    rows[:, row].view(turned.shape).copy_(turned)


@register("tape_lines", "torch")
def lines(rows: Tensor, row: int, offset: Tensor, value: Tensor, out: Tensor) -> None:
    """Read ``out[c] = sum_m value[m, c] rows[c, row + offset[m, c]]``.

    Args:
        rows: ``(channel, time, chunk)``.
        row: the current step.
        offset: int64 ``(m, channel)``.
        value: ``(m, channel)``.
        out: ``(channel, batch, space)``, any strides.
    """
    channel = torch.arange(rows.shape[0], device=rows.device)
    out.copy_((rows[channel, offset + row] * value.unsqueeze(-1)).sum(0).view(out.shape))


@register("tape_series", "torch")
def series(rows: Tensor, start: int, offset: Tensor, value: Tensor, out: Tensor) -> None:
    """Do what :func:`lines` does for all steps from ``start`` on; ``out (channel, time, chunk)``."""
    out.zero_()
    channel = torch.arange(rows.shape[0], device=rows.device).unsqueeze(1)
    step = torch.arange(start, start + out.shape[1], device=rows.device)
    for m in range(offset.shape[0]):
        out.addcmul_(rows[channel, step + offset[m].unsqueeze(1)], value[m].view(-1, 1, 1))


@register("tape_synapses", "torch")
def synapses(rows: Tensor, row: int, offset: Tensor, value: Tensor, out: Tensor) -> None:
    """Read ``out[a] = sum_{b, m} value[b, a, m] rows[b, row + offset[b, a, m]]``, one output at a time."""
    target = torch.empty(value.shape[1], rows.shape[2], dtype=value.dtype, device=rows.device)
    channel = torch.arange(rows.shape[0], device=rows.device).unsqueeze(1)
    for a in range(value.shape[1]):
        found = rows[channel, row + offset[:, a]].flatten(0, 1).to(value.dtype)
        torch.mv(found.t(), value[:, a].flatten(), out=target[a])
    out.copy_(target.view(out.shape))


@register("tape_correlation", "torch")
def correlation(rows: Tensor, gradients: Tensor, index: Tensor) -> Tensor:
    """Correlate ``c[m, c] = sum_t gradients[c, t] . rows[c, t - index[m, c]]``; none where that is before 0."""
    channel = torch.arange(rows.shape[0], device=rows.device).unsqueeze(1)
    step = torch.arange(rows.shape[1], device=rows.device)
    read = [(rows[channel, (step - k.unsqueeze(1)).clamp(min=0)] * gradients).sum((1, 2)) for k in index]
    return torch.stack(read)


@register("tape_store", "cpu")
def store_cpu(rows: Tensor, row: int, x: Tensor) -> None:
    """Do what :func:`store` does."""
    if x.dim() != 2:  # the chunks of maps are contiguous already
        store(rows, row, x.detach())
        return
    x = x.detach()
    if x.dtype is not rows.dtype:
        x = x.to(rows.dtype)
    _store_channels(rows.numpy(), row, x.contiguous().numpy())


@register("tape_lines", "cpu")
def lines_cpu(rows: Tensor, row: int, offset: Tensor, value: Tensor, out: Tensor) -> None:
    """Do what :func:`lines` does."""
    _lines(rows.numpy(), row, offset.numpy(), value.numpy(), out.numpy())


@register("tape_series", "cpu")
def series_cpu(rows: Tensor, start: int, offset: Tensor, value: Tensor, out: Tensor) -> None:
    """Do what :func:`series` does."""
    out.zero_()
    _series(rows.flatten(1).numpy(), rows.shape[2], start, offset.numpy(), value.numpy(), out.flatten(1).numpy())


@register("tape_synapses", "cpu")
def synapses_cpu(rows: Tensor, row: int, offset: Tensor, value: Tensor, out: Tensor) -> None:
    """Do what :func:`synapses` does."""
    target = torch.zeros(value.shape[1], rows.shape[2], dtype=value.dtype)
    _synapses(rows.numpy(), row, offset.numpy(), value.numpy(), target.numpy())
    out.copy_(target.view(out.shape))


@register("tape_correlation", "cpu")
def correlation_cpu(rows: Tensor, gradients: Tensor, index: Tensor) -> Tensor:
    """Do what :func:`correlation` does."""
    out = torch.zeros(index.shape, dtype=torch.float64)
    _correlation(rows.numpy(), gradients.numpy(), index.numpy(), out.numpy())
    return out.to(rows.dtype)


# The loops below index whole arrays by np.uintp: a slice of an array costs a reference count, and a signed index a test
# for Python's negative ones, which together took six times as long as the arithmetic.


@compiled()
def _store_channels(rows, row, x):  # type: ignore[no-untyped-def]
    batch, channels = x.shape
    at = np.uintp(row)
    for c in range(channels):
        for b in range(batch):
            rows[c, at, b] = x[b, c]


@compiled()
def _lines(rows, row, offset, value, out):  # type: ignore[no-untyped-def]
    """Collect the taps in use; one or two of them, the rule, need no intermediate sum."""
    count, channels = offset.shape
    _, batch, space = out.shape
    where, weight = np.zeros(count + 2, np.uintp), np.zeros(count + 2, value.dtype)
    total = np.zeros(batch * space, out.dtype)
    for c in range(channels):
        used = 0
        weight[0] = weight[1] = 0
        where[0] = where[1] = row
        for m in range(count):
            if value[m, c] != 0:
                where[used], weight[used] = row + offset[m, c], value[m, c]
                used += 1
        r0, r1, w0, w1 = where[0], where[1], weight[0], weight[1]
        if used <= 2 and space == 1:
            for b in range(batch):
                out[c, b, 0] = w0 * rows[c, r0, b] + w1 * rows[c, r1, b]
            continue
        for n in range(batch * space):
            total[n] = w0 * rows[c, r0, n] + w1 * rows[c, r1, n]
        for k in range(2, used):
            r0, w0 = where[k], weight[k]
            for n in range(batch * space):
                total[n] += w0 * rows[c, r0, n]
        for b in range(batch):
            for s in range(space):
                out[c, b, s] = total[b * space + s]


@compiled()
def _series(rows, chunk, start, offset, value, out):  # type: ignore[no-untyped-def]
    """One shifted multiply-add of whole series for every channel and tap."""
    count, channels = offset.shape
    length = out.shape[1]
    for c in range(channels):
        target = out[c]
        for m in range(count):
            weight, begin = value[m, c], (start + offset[m, c]) * chunk
            if weight != 0:
                source = rows[c, begin : begin + length]
                for n in range(length):
                    target[n] += weight * source[n]


@compiled()
def _synapses(rows, row, offset, value, out):  # type: ignore[no-untyped-def]
    """Go through the inputs in the outer loop: the few rows that one input's delays can reach stay in the cache."""
    inputs, outputs, count = offset.shape
    chunk = rows.shape[2]
    for b in range(inputs):
        for a in range(outputs):
            for m in range(count):
                weight = value[b, a, m]
                if weight != 0:
                    at = np.uintp(row + offset[b, a, m])
                    for n in range(chunk):
                        out[a, n] += weight * rows[b, at, n]


@compiled(fastmath=("contract", "reassoc", "nsz"))
def _correlation(rows, gradients, index, out):  # type: ignore[no-untyped-def]
    """Sum a chunk in the rows' precision, with vector units, and the chunks in float64."""
    time, chunk = gradients.shape[1:]
    for c in range(rows.shape[0]):
        for m in range(index.shape[0]):
            k, overall = index[m, c], 0.0
            for t in range(k, time):
                at, total = np.uintp(t - k), rows.dtype.type(0)
                for n in range(chunk):
                    total += rows[c, at, n] * gradients[c, t, n]
                overall += total
            out[m, c] = overall
