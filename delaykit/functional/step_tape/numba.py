"""The inner loops of a tape by Numba, over recordings ``(channel, time, chunk)``: backend ``cpu``."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from delaykit.functional.compiled import DOT_PRODUCTS, arrays, compiled
from delaykit.functional.step_tape import torch as plain
from delaykit.functional.step_tape.cells.kernels import (
    add_overlap,
    deliver_pairs,
    list_cells,
    read_heights,
    write_heights,
    write_pending,
)
from delaykit.functional.step_tape.packing import by_age, packed, places_in

try:
    from delaykit.functional.llvm import polynomials as vectors
    from delaykit.functional.llvm import rows as vector_rows
except ImportError as error:  # the folder may be deleted
    if error.name != "delaykit.functional.llvm":
        raise
    vectors = vector_rows = None  # type: ignore[assignment]

BLOCK = 8  # inputs whose rows are read together
TILE = 16  # channels that are turned together, each of whose rows in memory is read or written once
NOTHING = {np.dtype(name): np.empty((0, 0), name) for name in ("float32", "float64")}
NEAR = 28_000  # bytes of rows that a block of inputs may reach back to, and find in the first cache in any order
FAR = 500_000  # bytes at which a block of inputs is worth it at all: the second cache holds them
VECTOR_BYTES = 64


def tape_store(rows: Tensor, row: int, x: Tensor) -> None:
    """Do what :func:`~delaykit.functional.step_tape.torch.tape_store` does."""
    x = x.detach()
    if x.dim() != 2:  # the chunks of maps are contiguous already
        turned = x.transpose(0, 1)
        rows[:, row].view(turned.shape).copy_(turned)
        return
    if x.dtype is not rows.dtype:
        x = x.to(rows.dtype)
    if _by_time(rows):
        _store_by_time(rows.numpy().transpose(1, 0, 2), row, x.contiguous().numpy())
    else:
        _store_by_channel(rows.numpy(), row, x.contiguous().numpy())


def _by_time(rows: Tensor) -> bool:
    """Tell whether the steps come first in memory."""
    channel, time, _ = rows.stride()
    return channel < time


def tape_lines(
    rows: Tensor, row: int, offset: Tensor, value: Tensor, out: Tensor, kept: dict[str, Any] | None = None
) -> None:
    """Do what :func:`~delaykit.functional.step_tape.torch.tape_lines` does."""
    kept = {} if kept is None else kept
    if "taps" not in kept:  # a view of a tensor takes as long as some hundred numbers
        kept["taps"] = offset.numpy(), value.numpy()
    if kept.get("rows") is rows:
        read = kept["read"]
    else:
        read = rows.numpy().transpose(1, 0, 2)  # steps first
        if kept.get("reused"):  # whoever says so holds rows and output as long as this
            kept["rows"], kept["read"] = rows, read
    taps, weight = kept["taps"]
    if kept.get("out") is out:
        _lines(read, row, taps, weight, kept["flat"], kept["none"])
        return
    array, none = out.numpy(), NOTHING[weight.dtype]
    if out.is_contiguous():
        flat = array.reshape(len(array), -1)
        if kept.get("reused"):
            kept["out"], kept["flat"], kept["none"] = out, flat, none
        _lines(read, row, taps, weight, flat, none)
        return
    if kept.get("shape") != out.shape:
        kept["shape"], kept["scratch"] = out.shape, np.empty((len(array), out[0].numel()), array.dtype)
    turned = array[:, :, 0].T if out.shape[2] == 1 else none
    if turned.size and turned.flags.c_contiguous:
        _lines(read, row, taps, weight, kept["scratch"], turned)
    else:
        _lines(read, row, taps, weight, kept["scratch"], none)
        out.copy_(torch.from_numpy(kept["scratch"]).view(out.shape))


def tape_series(rows: Tensor, start: int, offset: Tensor, value: Tensor, out: Tensor) -> None:
    """Do what :func:`~delaykit.functional.step_tape.torch.tape_series` does."""
    _series(rows.numpy().transpose(1, 0, 2), start, offset.numpy(), value.numpy(), out.numpy())


def tape_synapses(
    rows: Tensor, row: int, offset: Tensor, value: Tensor, out: Tensor, kept: dict[str, Any] | None = None
) -> None:
    """Do what :func:`~delaykit.functional.step_tape.torch.tape_synapses` does."""
    kept = {} if kept is None else kept
    target = torch.zeros(value.shape[1], rows.shape[2], dtype=value.dtype)
    if kept.get("shape") != rows.shape:
        kept["shape"] = rows.shape
        _prepare(rows, offset, value, kept)
    flat, now, sums = rows.reshape(-1).numpy(), row * rows.shape[2], target.numpy()
    if kept["order"] is None:
        vector_rows.read_taps(flat, now, VECTOR_BYTES // value.element_size(), *kept["listed"], sums)
    else:
        _synapses_by_age(flat, now, *kept["listed"], rows.shape[2], sums.reshape(-1))
    out.copy_(target.view(out.shape))


def tape_polynomials(
    rows: Tensor, row: int, place: Tensor, part: Tensor, strength: Tensor, terms: int, out: Tensor,
    kept: dict[str, Any] | None = None,
) -> None:  # fmt: skip
    """Do what :func:`~delaykit.functional.step_tape.torch.tape_polynomials` does."""
    if vectors is None:
        plain.tape_polynomials(rows, row, place, part, strength, terms, out, kept)
        return
    kept = {} if kept is None else kept
    target = torch.zeros(strength.shape[1], rows.shape[2], dtype=strength.dtype)
    if kept.get("shape") != rows.shape:
        places = places_in(place.unsqueeze(2), rows)
        kept["shape"] = rows.shape
        kept["table"] = [packed(x, BLOCK) for x in (places, part.unsqueeze(2), strength.unsqueeze(2))]
    vectors.read_polynomials(rows.view(-1).numpy(), row * rows.shape[2], *kept["table"], terms, target.numpy())
    out.copy_(target.view(out.shape))


def _prepare(rows: Tensor, offset: Tensor, value: Tensor, kept: dict[str, Any]) -> None:
    """List the taps that are not 0, in the order in which they are read, for these rows."""
    inputs, outputs, count = offset.shape
    reach = int(offset.abs().max()) + 1
    size = max(1, reach * rows.shape[2] * rows.element_size())  # an empty batch, too
    if vector_rows is None or FAR // size * count < BLOCK:  # too few taps for a pass over an output
        order = kept["order"] = by_age(offset, reach)
        output = torch.arange(outputs, dtype=torch.int32).view(1, -1, 1) * rows.shape[2]
        listed = places_in(offset, rows), output.expand_as(offset), value
        kept["listed"] = [x.flatten()[order].numpy() for x in listed]
        return
    kept["order"] = None
    few = min(max(NEAR // size, -(-BLOCK // count)), inputs)
    first, weight = np.zeros((-(-inputs // few), outputs + 1), np.int64), np.zeros(value.numel(), value.numpy().dtype)
    place = np.zeros(value.numel(), np.int32 if rows.numel() < 2**31 else np.int64)
    moves = 1, count, outputs * count, rows.shape[2], rows.shape[1] * rows.shape[2]
    taps, none = arrays(offset.flatten(), value.flatten()), np.zeros(0, np.int32)
    vector_rows.list_taps(*taps, reach, (count, outputs, inputs, few), moves, first, place, weight, none)
    kept["listed"] = first, place, weight


def tape_correlation(rows: Tensor, gradients: Tensor, index: Tensor) -> Tensor:
    """Do what :func:`~delaykit.functional.step_tape.torch.tape_correlation` does."""
    out = torch.zeros(index.shape, dtype=torch.float64)
    _correlation(*(x.numpy().transpose(1, 0, 2) for x in (rows, gradients)), index.numpy(), out.numpy())
    return out.to(rows.dtype)


def tape_tents(rows: Tensor, row: int, height: Tensor, source: Tensor, at: int, count: int) -> None:
    """Do what :func:`~delaykit.functional.step_tape.torch.tape_tents` does."""
    write_heights(rows.numpy(), row, height.numpy(), source.numpy(), at, count)


def tape_pending(rows: Tensor, row: int, height: Tensor, begin: int, phases: int, pending: Tensor) -> None:
    """Do what :func:`~delaykit.functional.step_tape.torch.tape_pending` does."""
    write_pending(rows.numpy(), row, height.numpy(), begin, phases, pending.numpy())


def tape_heights(rows: Tensor, row: int, height: Tensor, out: Tensor) -> None:
    """Do what :func:`~delaykit.functional.step_tape.torch.tape_heights` does."""
    read_heights(rows.numpy(), row, height.numpy(), out.numpy())


def tape_deliver(
    rows: Tensor, row: int, place: Tensor, strength: Tensor, source: Tensor, at: int,
    kept: dict[str, Any] | None = None,
) -> None:  # fmt: skip
    """Do what :func:`~delaykit.functional.step_tape.torch.tape_deliver` does."""
    cells, chunk = rows.shape[1:]
    if vector_rows is None:
        deliver_pairs(rows.view(-1).numpy(), row, cells, place.numpy(), strength.numpy(), source.numpy(), at)
        return
    kept = {} if kept is None else kept
    shapes = rows.shape, source.shape
    if kept.get("shapes") != shapes:  # cell by cell, each of which is read and written once
        kept["shapes"], kept["first"] = shapes, np.zeros(len(rows) * cells + 2, np.int64)
        kept["where"] = np.empty(strength.numel(), np.int32 if source.numel() < 2**31 else np.int64)
        kept["weight"] = np.empty_like(strength.numpy()).reshape(-1)
        listed = kept["first"], kept["where"], kept["weight"]
        list_cells(*arrays(place, strength), cells, source.shape[1] * chunk, *listed)
    target, lanes = rows.view(-1, chunk)[row:].numpy(), VECTOR_BYTES // rows.element_size()
    first, now = kept["first"][None, :-1], at * chunk
    vector_rows.read_taps(source.reshape(-1).numpy(), now, lanes, first, kept["where"], kept["weight"], target)


def tape_overlap(rows: Tensor, row: int, offset: Tensor, x: Tensor, out: Tensor) -> None:
    """Do what :func:`~delaykit.functional.step_tape.torch.tape_overlap` does."""
    add_overlap(rows.numpy(), row, offset.numpy(), x.numpy(), out.numpy())


# The loops below index whole arrays by np.uintp: a slice of an array costs a reference count, and a signed index a test
# for Python's negative ones, which together took six times as long as the arithmetic.


@compiled()
def _store_by_channel(rows, row, x):  # type: ignore[no-untyped-def]
    batch, channels = x.shape
    at, whole = np.uintp(row), channels // TILE * TILE
    for first in range(0, whole, TILE):
        for b in range(batch):
            for k in range(TILE):
                rows[first + k, at, b] = x[b, first + k]
    for c in range(whole, channels):
        for b in range(batch):
            rows[c, at, b] = x[b, c]


@compiled()
def _store_by_time(rows, row, x):  # type: ignore[no-untyped-def]
    """Do the same where steps come first."""
    batch, channels = x.shape
    at, whole = np.uintp(row), channels // TILE * TILE
    for first in range(0, whole, TILE):
        for b in range(batch):
            for k in range(TILE):
                rows[at, first + k, b] = x[b, first + k]
    for c in range(whole, channels):
        for b in range(batch):
            rows[at, c, b] = x[b, c]


@compiled()
def _lines(rows, row, offset, value, out, turned):  # type: ignore[no-untyped-def]
    """Read the taps in use into ``out (channel, chunk)``; ``turned (chunk, channel)``, if any, gets it last."""
    count, channels = offset.shape
    batch = out.shape[1]
    where, weight = np.zeros(count + 2, np.uintp), np.zeros(count + 2, value.dtype)
    for c in range(channels):
        used = 0
        weight[0] = weight[1] = 0
        where[0] = where[1] = row
        for m in range(count):
            if value[m, c] != 0:
                where[used], weight[used] = row + offset[m, c], value[m, c]
                used += 1
        r0, r1, w0, w1 = where[0], where[1], weight[0], weight[1]
        for b in range(batch):
            out[c, b] = w0 * rows[r0, c, b] + w1 * rows[r1, c, b]
        for k in range(2, used):
            r0, w0 = where[k], weight[k]
            for b in range(batch):
                out[c, b] += w0 * rows[r0, c, b]
    whole = channels // TILE * TILE if turned.shape[0] > 0 else 0
    for first in range(0, whole, TILE):
        for b in range(batch):
            for k in range(TILE):
                turned[b, first + k] = out[first + k, b]
    for b in range(turned.shape[0]):
        for c in range(whole, channels):
            turned[b, c] = out[c, b]


@compiled()
def _series(rows, start, offset, value, out):  # type: ignore[no-untyped-def]
    """Read every step's taps: what one step reads lies together."""
    count, channels = offset.shape
    _, time, chunk = out.shape
    for t in range(time):
        for c in range(channels):
            for n in range(chunk):
                out[c, t, n] = 0
            for m in range(count):
                weight, at = value[m, c], np.uintp(start + t + offset[m, c])
                if weight != 0:
                    for n in range(chunk):
                        out[c, t, n] += weight * rows[at, c, n]


@compiled()
def _synapses_by_age(rows, shift, where, to, weight, chunk, out):  # type: ignore[no-untyped-def]
    """Read synapses whose delays are long: rows as they lie in memory, and outputs, which are few, at random."""
    for e in range(len(where)):
        row, target, w = np.uintp(where[e] + shift), np.uintp(to[e]), weight[e]
        for i in range(chunk):
            n = np.uintp(i)
            out[target + n] += w * rows[row + n]


@compiled(DOT_PRODUCTS)
def _correlation(rows, gradients, index, out):  # type: ignore[no-untyped-def]
    """Sum a chunk in the rows' precision, with vector units, and the chunks in float64."""
    time, channels, chunk = gradients.shape
    for t in range(time):
        for c in range(channels):
            for m in range(index.shape[0]):
                k, total = index[m, c], rows.dtype.type(0)
                if t >= k:
                    at = np.uintp(t - k)
                    for n in range(chunk):
                        total += rows[at, c, n] * gradients[t, c, n]
                    out[m, c] += total
