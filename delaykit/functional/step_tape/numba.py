"""The inner loops of a tape by Numba, over recordings ``(channel, time, chunk)``: backend ``cpu``."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from delaykit.functional.compiled import DOT_PRODUCTS, compiled

BLOCK = 8  # inputs whose rows are read together
SPARSE = 0.25  # share of taps that are not 0, below which they are looked for
NEAR = 60_000  # bytes of rows that a block of inputs may reach back to, and find in the cache in any order


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


def tape_synapses(
    rows: Tensor, row: int, offset: Tensor, value: Tensor, out: Tensor, kept: dict[str, Any] | None = None
) -> None:
    """Do what :func:`~delaykit.functional.step_tape.torch.tape_synapses` does."""
    kept = {} if kept is None else kept
    target = torch.zeros(value.shape[1], rows.shape[2], dtype=value.dtype)
    if kept.get("shape") != rows.shape:
        kept["shape"] = rows.shape
        _prepare(rows, offset, value, kept)
    if kept["weight"] is None:
        _few_synapses(rows.numpy(), row, offset.numpy(), value.numpy(), target.numpy())
    else:
        kernel = _synapses if kept["to"] is None else _synapses_by_age
        where = (kept["where"],) if kept["to"] is None else (kept["where"], kept["to"])
        flat = rows.reshape(-1).numpy(), target.view(-1).numpy()
        kernel(flat[0], row * rows.shape[2], *where, kept["weight"], rows.shape[2], flat[1])
    out.copy_(target.view(out.shape))


def _prepare(rows: Tensor, offset: Tensor, value: Tensor, kept: dict[str, Any]) -> None:
    """Write the tables of a kernel for these rows; its weights are there already where only the rows have grown."""
    if "weight" not in kept:
        kept["weight"] = kept["to"] = kept["order"] = None
        if float((value != 0).float().mean()) > SPARSE:
            reach = int(offset.abs().max()) + 1
            far = BLOCK * reach * rows.shape[2] * rows.element_size() > NEAR
            kept["order"] = _by_age(offset, reach) if far else None
            kept["weight"] = value.flatten()[kept["order"]].numpy() if far else _packed(value)
            if far:
                output = torch.arange(offset.shape[1], dtype=torch.int32).view(1, -1, 1) * rows.shape[2]
                kept["to"] = output.expand_as(offset).flatten()[kept["order"]].numpy()
    if kept["weight"] is not None:
        places = _places(offset, rows)
        kept["where"] = _packed(places) if kept["order"] is None else places.flatten()[kept["order"]].numpy()


def _by_age(offset: Tensor, reach: int) -> Tensor:
    """Order taps by the input they read, and then by the step: the way in which its rows lie in memory."""
    channel = torch.arange(offset.shape[0]).view(-1, 1, 1)
    return (channel * 2 * reach + offset).flatten().argsort()


def _packed(each: Tensor) -> np.ndarray:
    """Turn ``(from, to, m)`` into ``(block, to, BLOCK * m)``, what a block of inputs gives an output in a row.

    What is filled in for inputs that are not there reads any place, with a weight of 0.
    """
    inputs, outputs, count = each.shape
    whole = torch.nn.functional.pad(each, (0, 0, 0, 0, 0, -inputs % BLOCK))
    turned = whole.view(-1, BLOCK, outputs, count).transpose(1, 2)
    return turned.reshape(-1, outputs, BLOCK * count).contiguous().numpy()


def _places(offset: Tensor, rows: Tensor) -> Tensor:
    """Find the number in flat ``rows`` where each tap reads at row 0.

    Half as many bytes where they do: places and weights are read from memory anew at each step.
    """
    channel = torch.arange(rows.shape[0]).view(-1, 1, 1)
    places = (channel * rows.shape[1] + offset) * rows.shape[2]
    return places.int() if rows.numel() < 2**31 else places


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
def _synapses(rows, shift, where, weight, chunk, out):  # type: ignore[no-untyped-def]
    """Eight taps share a pass over an output; the few rows that a block of inputs can reach stay in the cache."""
    blocks, outputs, taps = where.shape
    size = np.uintp(chunk)
    for g in range(blocks):
        for a in range(outputs):
            begin = np.uintp(a) * size
            for k in range(0, taps, 8):
                w0, w1, w2, w3 = weight[g, a, k], weight[g, a, k + 1], weight[g, a, k + 2], weight[g, a, k + 3]
                w4, w5, w6, w7 = weight[g, a, k + 4], weight[g, a, k + 5], weight[g, a, k + 6], weight[g, a, k + 7]
                r0, r1 = np.uintp(where[g, a, k] + shift), np.uintp(where[g, a, k + 1] + shift)
                r2, r3 = np.uintp(where[g, a, k + 2] + shift), np.uintp(where[g, a, k + 3] + shift)
                r4, r5 = np.uintp(where[g, a, k + 4] + shift), np.uintp(where[g, a, k + 5] + shift)
                r6, r7 = np.uintp(where[g, a, k + 6] + shift), np.uintp(where[g, a, k + 7] + shift)
                for i in range(chunk):
                    n = np.uintp(i)
                    one = (w0 * rows[r0 + n] + w1 * rows[r1 + n]) + (w2 * rows[r2 + n] + w3 * rows[r3 + n])
                    two = (w4 * rows[r4 + n] + w5 * rows[r5 + n]) + (w6 * rows[r6 + n] + w7 * rows[r7 + n])
                    out[begin + n] += one + two


@compiled()
def _synapses_by_age(rows, shift, where, to, weight, chunk, out):  # type: ignore[no-untyped-def]
    """Do the same where delays are long: rows are read as they lie in memory, and outputs, which are few, at random."""
    for e in range(len(where)):
        row, target, w = np.uintp(where[e] + shift), np.uintp(to[e]), weight[e]
        for i in range(chunk):
            n = np.uintp(i)
            out[target + n] += w * rows[row + n]


@compiled()
def _few_synapses(rows, row, offset, value, out):  # type: ignore[no-untyped-def]
    """Do the same for taps most of which are 0, one after the other."""
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
