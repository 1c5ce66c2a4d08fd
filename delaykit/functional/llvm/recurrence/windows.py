"""The compiled steps of synapses on a grid: windows of cells around now, into which the synapses deliver.

Forwards, a spike falls into the two cells of each of its synapses, and the line reads the cells around now. With one
cell a step there is a window for each row of the batch, ``(batch, cell, post)``, which the second cache holds. With
more, and backwards, where the line writes a gradient into the cells around now and every synapse reads its two, there
is one for each postsynaptic neuron, a ring ``(post, cell, batch)``: all that this neuron needs is done before the next
one's turn, in the first cache. There the rows of a batch are padded to a multiple of 8, to be worked on by vectors.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import functools
from typing import Any

import numpy as np

from delaykit.functional.compiled import compiled
from delaykit.functional.llvm.recurrence.vector import (
    make_add_bits,
    make_add_rows,
    make_gather,
    make_sum_bits,
)
from delaykit.functional.llvm.registers import LANES

MOST_DELIVERED = 1.0  # spikes a mask up to which delivering each is faster than adding a weight under every mask
MOST_GATHERED = 1.25  # the same for sums of a gradient under masks


@compiled()
def deliver(now, window, place, low, high, whole, line, height, x, out):
    """Deliver x ``(batch, pre)`` through the synapses and write what arrives now to out ``(batch, post)``.

    Args:
        now: place of the first cell of this step in a window.
        window: ``(batch, cells * post)``.
        place: place of a synapse's cell relative to now, ``(pre, post)`` flat, as are low and high.
        low: weight of the cell.
        high: weight of the next one.
        whole: whether all of these are zero.
        line: places, relative to now, of the cells that reach this step, and height: by how much.
    """
    batch, inputs = x.shape
    outputs = out.shape[1]
    active = np.empty(inputs + 1, np.int64)
    for b in range(batch):
        row, target, result = x[b], window[b], out[b]
        used = 0
        for n in range(inputs):
            active[used] = n
            used += row[n] != 0
        for e in range(used):
            size, start = row[active[e]], np.uintp(active[e] * outputs)
            if whole:
                for k in range(outputs):
                    synapse = start + np.uintp(k)
                    target[np.uintp(now + place[synapse])] += low[synapse] * size
            else:
                for k in range(outputs):
                    synapse = start + np.uintp(k)
                    at = now + place[synapse]
                    target[np.uintp(at)] += low[synapse] * size
                    target[np.uintp(at + outputs)] += high[synapse] * size
        result[:] = 0
        for e in range(len(line)):
            arrived, scale = target[now + line[e] : now + line[e] + outputs], height[e]
            for k in range(outputs):
                result[k] += scale * arrived[k]


def padded(batch: int) -> int:
    """Length of a row for a batch of this size."""
    return -(-batch // LANES) * LANES


@functools.cache
def ring_kernels(block: int) -> tuple[Any, Any]:
    """Compile ``deliver_ring`` and ``pull`` on first use, for rows whose length is a multiple of ``block``: 8 or 32."""
    import numba

    jit = numba.njit(nogil=True, error_model="numpy", fastmath={"contract", "reassoc", "nsz"})
    gather, add, add_two = make_gather(numba, block), make_add_rows(numba, block, 1), make_add_rows(numba, block, 2)
    add_bits, sum_one, sum_two = make_add_bits(numba, block, 2), *(make_sum_bits(numba, block, n) for n in (1, 2))

    @jit
    def list_spikes(x, pre, row, size):
        """List what is not zero in x ``(batch, pre)``: neuron, row and size; return how many and if all are 1."""
        used, plain = 0, True
        for b in range(x.shape[0]):
            now = x[b]
            for n in range(x.shape[1]):
                pre[used], row[used], size[used] = n, b, now[n]
                used += now[n] != 0
        for e in range(used):
            plain &= size[e] == 1
        return used, plain

    @jit
    def pack_spikes(bits, pre, row, used, wide):
        """Pack the first of the listed spikes into rows of ``wide`` bytes."""
        bits[:] = 0
        for e in range(used):
            bits[pre[e] * wide + row[e] // 8] |= 1 << row[e] % 8

    @jit
    def transpose_in(x, rows, width):
        """Write ``(batch, neuron)`` as flat padded rows ``(neuron, batch)``."""
        for b in range(x.shape[0]):
            for n in range(x.shape[1]):
                rows[n * width + b] = x[b, n]

    @jit
    def transpose_out(rows, width, out):
        """Turn flat padded rows ``(neuron, batch)`` as ``(batch, neuron)``."""
        for b in range(out.shape[0]):
            for n in range(out.shape[1]):
                out[b, n] = rows[n * width + b]

    @jit
    def deliver_ring(ring, window, cell, low, high, line, height, bits, sums, x, out):
        """Do what ``deliver`` does, by windows of postsynaptic neurons; synapses are ``(post, pre)``.

        ring: first cell of now, cells less 1, first cell that begins anew, cells a step, length of a row.
        bits, sums: flat scratch, a padded row for each neuron, in bits and in numbers.
        """
        now, mask, opening, phases, width = ring
        span = (mask + 1) * width
        pre, row = np.empty(x.size + 1, np.uint32), np.empty(x.size + 1, np.uint32)
        size, place = np.empty(x.size + 1, x.dtype), np.empty(len(line), np.int64)
        for e in range(len(line)):
            place[e] = ((now + line[e]) & mask) * width
        used, plain = list_spikes(x, pre, row, size)
        few = not plain or used <= MOST_DELIVERED * cell.shape[1] * (width // block)
        wide = width // 8
        pack_spikes(bits, pre, row, 0 if few else used, wide)
        for i in range(cell.shape[0]):
            start = i * span
            cells, lows, highs = cell[i], low[i], high[i]
            for p in range(phases):
                at = start + ((opening + p) & mask) * width
                for b in range(width):
                    window[np.uintp(at + b)] = 0
            for e in range(used if few else 0):
                j = np.uintp(pre[e])
                c = now + cells[j]
                window[np.uintp(start + (c & mask) * width + row[e])] += lows[j] * size[e]
                window[np.uintp(start + ((c + 1) & mask) * width + row[e])] += highs[j] * size[e]
            for b in range(0, width, block):
                for n in range(0 if few else len(cells)):
                    j = np.uintp(n)
                    c = now + cells[j]
                    places = start + (c & mask) * width + b, start + ((c + 1) & mask) * width + b
                    add_bits(window, places, bits, n * wide + b // 8, (lows[j], highs[j]))
                gather(sums, i * width + b, window, start + b, place, height, 0, len(place))
        transpose_out(sums, width, out)

    @jit
    def pull(ring, window, cell, low, high, line, height, bits, sums, rows, whole, grad, x, grads, out):
        """Take the gradient ``grad (batch, post)`` of the current; write that of x to out ``(batch, pre)``.

        ``grads`` ``(2 or 3, post, pre)``, or none: adds the products of x with the gradient that has arrived at the
        cell of a synapse, the next one and the one before. For the others see above.
        """
        now, mask, opening, phases, width = ring
        span, inputs = (mask + 1) * width, cell.shape[1]
        pre, row = np.empty(x.size + 1, np.uint32), np.empty(x.size + 1, np.uint32)
        size, place = np.empty(x.size + 1, x.dtype), np.empty(len(line), np.int64)
        for e in range(len(line)):
            place[e] = ((now + line[e]) & mask) * width
        used, plain = list_spikes(x, pre, row, size) if len(grads) > 0 else (0, True)
        few = not plain or used <= MOST_GATHERED * inputs * (width // block)
        wide = width // 8
        pack_spikes(bits, pre, row, 0 if few else used, wide)
        transpose_in(grad, rows, width)
        sums[:] = 0
        for i in range(cell.shape[0]):
            start = i * span
            cells, lows, highs = cell[i], low[i], high[i]
            for p in range(phases):
                at = start + ((opening + p) & mask) * width
                for b in range(width):
                    window[np.uintp(at + b)] = 0
            for b in range(0, width, block):
                for e in range(len(line)):
                    add(window, start + place[e] + b, rows, (i * width + b,), (height[e],))
                if whole:
                    for n in range(inputs):
                        j = np.uintp(n)
                        c = now + cells[j]
                        add(sums, n * width + b, window, (start + (c & mask) * width + b,), (lows[j],))
                else:
                    for n in range(inputs):
                        j = np.uintp(n)
                        c = now + cells[j]
                        places = start + (c & mask) * width + b, start + ((c + 1) & mask) * width + b
                        add_two(sums, n * width + b, window, places, (lows[j], highs[j]))
            if few and len(grads) > 0:
                first, second = grads[0, i], grads[1, i]
                for e in range(used):
                    j, at, factor = np.uintp(pre[e]), start + row[e], size[e]
                    c = now + cells[j]
                    first[j] += window[np.uintp(at + (c & mask) * width)] * factor
                    second[j] += window[np.uintp(at + ((c + 1) & mask) * width)] * factor
            if few and len(grads) > 2:
                third = grads[2, i]
                for e in range(used):
                    j = np.uintp(pre[e])
                    third[j] += window[np.uintp(start + ((now + cells[j] - 1) & mask) * width + row[e])] * size[e]
            for b in range(0, 0 if few else width, block):
                first, second = grads[0, i], grads[1, i]
                for n in range(inputs):
                    j = np.uintp(n)
                    c = now + cells[j]
                    places = start + (c & mask) * width + b, start + ((c + 1) & mask) * width + b
                    here, after = sum_two(window, places, bits, n * wide + b // 8)
                    first[j] += here
                    second[j] += after
                third = grads[len(grads) - 1, i]
                for n in range(inputs if len(grads) > 2 else 0):
                    j = np.uintp(n)
                    before = start + ((now + cells[j] - 1) & mask) * width + b
                    third[j] += sum_one(window, (before,), bits, n * wide + b // 8)[0]
        transpose_out(sums, width, out)

    return deliver_ring, pull
