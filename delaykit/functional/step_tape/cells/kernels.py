"""The compiled loops of lines of cells: what writes into them, and what is read out of them for gradients.

Whole arrays are indexed by np.uintp, see :mod:`delaykit.functional.step_tape.numba`.
"""

from __future__ import annotations

import numpy as np

from delaykit.functional.compiled import DOT_PRODUCTS, compiled


@compiled()
def write_heights(rows, row, height, source, at, count):  # type: ignore[no-untyped-def]
    """Add what an input is in each of the first ``count`` cells; one row of heights may be common to all channels."""
    channels, _, chunk = rows.shape
    when, common = np.uintp(at), height.shape[0] == 1
    for c in range(channels):
        own = np.uintp(0 if common else c)
        for k in range(count):
            h, to = height[own, k], np.uintp(row + k)
            if h != 0:
                for n in range(chunk):
                    rows[c, to, n] += h * source[c, when, n]


@compiled()
def write_pending(rows, row, height, begin, phases, pending):  # type: ignore[no-untyped-def]
    """Add what some steps are in each cell from ``row`` on, a cell at a time."""
    channels, _, chunk = rows.shape
    steps, size, common = pending.shape[1], height.shape[1], height.shape[0] == 1
    for c in range(channels):
        own = np.uintp(0 if common else c)
        for k in range(size - begin):
            to = np.uintp(row + k)
            for j in range(steps):
                late, step = begin + k + (steps - 1 - j) * phases, np.uintp(j)
                h = height[own, np.uintp(late)] if late < size else height.dtype.type(0)
                if h != 0:
                    for n in range(chunk):
                        rows[c, to, n] += h * pending[c, step, n]


@compiled()
def read_heights(rows, row, height, out):  # type: ignore[no-untyped-def]
    """Sum the cells of each channel by its heights."""
    channels, chunk = out.shape
    for c in range(channels):
        for n in range(chunk):
            out[c, n] = 0
        for k in range(height.shape[1]):
            h, at = height[c, k], np.uintp(row + k)
            if h != 0:
                for n in range(chunk):
                    out[c, n] += h * rows[c, at, n]


@compiled()
def deliver_pairs(rows, row, cells, place, strength, source, at):  # type: ignore[no-untyped-def]
    """The two cells of a synapse are neighbours, and so are their rows in flat ``rows``."""
    channels, sources = place.shape
    chunk = source.shape[2]
    when, size = np.uintp(at), np.uintp(chunk)
    for c in range(channels):
        for a in range(sources):
            low, high = strength[c, a, 0], strength[c, a, 1]
            first = np.uintp((c * cells + row + place[c, a]) * chunk)
            second = first + size
            for i in range(chunk):
                n = np.uintp(i)
                rows[first + n] += low * source[a, when, n]
                rows[second + n] += high * source[a, when, n]


@compiled()
def list_cells(place, strength, cells, stride, first, where, weight):  # type: ignore[no-untyped-def]
    """List what each row of ``rows (channel, cells, chunk)`` is given, row by row: where it lies, and what it weighs.

    Args:
        place: cell of a synapse's first share, ``(channel, sources)``.
        strength: ``(channel, sources, shares)``, neighbouring cells; nothing is listed for 0.
        cells: rows of a channel.
        stride: from a source to the next.
        first: zeros, one more than a row and its end; is written: the first of each row's entries.
        where: of each entry, is written.
        weight: of each entry, is written.
    """
    channels, sources, shares = strength.shape
    for c in range(channels):
        for a in range(sources):
            for m in range(shares):
                first[c * cells + place[c, a] + m + 2] += strength[c, a, m] != 0
    for row in range(2, len(first)):
        first[row] += first[row - 1]
    for c in range(channels):
        for a in range(sources):
            for m in range(shares):
                if strength[c, a, m] != 0:
                    row = c * cells + place[c, a] + m + 1
                    where[first[row]], weight[first[row]] = a * stride, strength[c, a, m]
                    first[row] += 1


@compiled(DOT_PRODUCTS)
def add_overlap(rows, row, offset, x, out):  # type: ignore[no-untyped-def]
    """Multiply the cells of each synapse with its input, and sum over a chunk."""
    outputs, inputs, count = offset.shape
    chunk = rows.shape[2]
    for b in range(outputs):
        for a in range(inputs):
            for m in range(count):
                at, total = np.uintp(row + offset[b, a, m]), rows.dtype.type(0)
                for n in range(chunk):
                    total += rows[b, at, n] * x[a, n]
                out[b, a, m] += total
