"""The inner loops of a tape by Numba, over recordings ``(channel, time, chunk)``: backend ``cpu``."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from delaykit.functional.compiled import DOT_PRODUCTS, compiled


def tape_store(rows: Tensor, row: int, x: Tensor) -> None:
    """Do what :func:`~delaykit.functional.step_tape.torch.tape_store` does."""
    if x.dim() != 2:  # the chunks of maps are contiguous already
        turned = x.detach().transpose(0, 1)
        rows[:, row].view(turned.shape).copy_(turned)
        return
    x = x.detach()
    if x.dtype is not rows.dtype:
        x = x.to(rows.dtype)
    _store_channels(rows.numpy(), row, x.contiguous().numpy())


def tape_lines(rows: Tensor, row: int, offset: Tensor, value: Tensor, out: Tensor) -> None:
    """Do what :func:`~delaykit.functional.step_tape.torch.tape_lines` does."""
    _lines(rows.numpy(), row, offset.numpy(), value.numpy(), out.numpy())


def tape_series(rows: Tensor, start: int, offset: Tensor, value: Tensor, out: Tensor) -> None:
    """Do what :func:`~delaykit.functional.step_tape.torch.tape_series` does."""
    out.zero_()
    _series(rows.flatten(1).numpy(), rows.shape[2], start, offset.numpy(), value.numpy(), out.flatten(1).numpy())


def tape_synapses(rows: Tensor, row: int, offset: Tensor, value: Tensor, out: Tensor) -> None:
    """Do what :func:`~delaykit.functional.step_tape.torch.tape_synapses` does."""
    target = torch.zeros(value.shape[1], rows.shape[2], dtype=value.dtype)
    _synapses(rows.numpy(), row, offset.numpy(), value.numpy(), target.numpy())
    out.copy_(target.view(out.shape))


def tape_correlation(rows: Tensor, gradients: Tensor, index: Tensor) -> Tensor:
    """Do what :func:`~delaykit.functional.step_tape.torch.tape_correlation` does."""
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


@compiled(DOT_PRODUCTS)
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
