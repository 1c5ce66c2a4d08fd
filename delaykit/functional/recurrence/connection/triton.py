"""One step of a recurrent connection for CUDA, by Triton, inside a program that runs a tile of the batch.

Forwards and backwards are one thing: a product, with a line of taps before it or behind it, or taps at every synapse,
read from a history. Backwards the matrix is the other way round, the line on its other side, and the history lies in
the future.

| delay | forwards | backwards |
|---|---|---|
| none | product | product |
| layer, axonal | line, product | product, line |
| dendritic | product, line | line, product |
| synaptic | synapses | synapses |

This module imports Triton.
"""

# mypy: disallow-untyped-defs=False
from __future__ import annotations

import triton
import triton.language as tl

NONE, PRODUCT, LINE_PRODUCT, PRODUCT_LINE, SYNAPSES = (tl.constexpr(kind) for kind in range(5))


@triton.jit
def read_line(history, index, value, t, steps, rows, inside_rows, at, inside_at, neurons, size,
              SIGN: tl.constexpr, TAPS: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip
    """Return ``sum_m value[m, n] history[t - SIGN index[m, n], b, n]`` for rows b and neurons n = ``at``."""
    total = tl.zeros([ROWS, BLOCK], dtype=history.dtype.element_ty)
    place = rows[:, None] * neurons + at[None, :]
    for m in range(TAPS):
        source = t - SIGN * tl.load(index + m * neurons + at, mask=inside_at, other=0)
        weight = tl.load(value + m * neurons + at, mask=inside_at, other=0.0)
        seen = inside_at & (source >= 0) & (source < steps) & (weight != 0)
        read = tl.load(history + source[None, :] * size + place, mask=inside_rows[:, None] & seen[None, :], other=0.0)
        total += weight[None, :] * read
    return total


@triton.jit
def read_synapses(history, index, value, t, steps, rows, inside_rows, at, inside_at, neurons, size,
                  SIGN: tl.constexpr, TAPS: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip
    """Return ``sum_{m, i} value[m, i, n] history[t - SIGN index[m, i, n], b, i]``, the weight being in the value."""
    total = tl.zeros([ROWS, BLOCK], dtype=history.dtype.element_ty)
    for i in range(neurons):
        for m in range(TAPS):
            synapse = (m * neurons + i) * neurons + at
            source = t - SIGN * tl.load(index + synapse, mask=inside_at, other=0)
            weight = tl.load(value + synapse, mask=inside_at, other=0.0)
            seen = inside_at & (source >= 0) & (source < steps) & (weight != 0)
            place = source[None, :] * size + rows[:, None] * neurons + i
            total += weight[None, :] * tl.load(history + place, mask=inside_rows[:, None] & seen[None, :], other=0.0)
    return total


@triton.jit
def multiplied(x, matrix, acc, DOT: tl.constexpr):
    """Add ``x (rows, k) matrix (k, n)``; where tensor cores have no such numbers, by sums."""
    if DOT:
        return tl.dot(x, matrix, acc, input_precision="ieee")
    return acc + tl.sum(x[:, :, None] * matrix[None, :, :], 1)


@triton.jit
def connected(history, kept, matrix, index, value, t, steps, rows, inside_rows, at, inside_at, neurons, size,
              KIND: tl.constexpr, SIGN: tl.constexpr, TAPS: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
              DEEP: tl.constexpr, DOT: tl.constexpr):  # fmt: skip
    """Return what a history ``(time, batch, neuron)`` sends through the connection at step t, ``(rows, neuron)``.

    Args:
        history: spikes, or gradients of currents; all that is read of it is written.
        kept: ``(time, batch, neuron)``, gets what lies between line and product.
        matrix: ``(from, to)``.
        index: taps ``(m, neuron)``, or ``(m, from, to)`` at synapses.
        value: of the same shape; at synapses times the matrix.
    """
    if KIND == SYNAPSES:
        return read_synapses(
            history, index, value, t, steps, rows, inside_rows, at, inside_at, neurons, size, SIGN, TAPS, ROWS, BLOCK
        )
    out = tl.zeros([ROWS, BLOCK], dtype=history.dtype.element_ty)
    for begin in range(0, neurons, DEEP):
        k = begin + tl.arange(0, DEEP)
        inside_k = k < neurons
        place = t * size + rows[:, None] * neurons + k[None, :]
        mask = inside_rows[:, None] & inside_k[None, :]
        if KIND == LINE_PRODUCT:
            x = read_line(
                history, index, value, t, steps, rows, inside_rows, k, inside_k, neurons, size, SIGN, TAPS, ROWS, DEEP
            )
            tl.store(kept + place, x, mask=mask)
        else:
            x = tl.load(history + place, mask=mask, other=0.0)
        weights = tl.load(
            matrix + k[:, None] * neurons + at[None, :], mask=inside_k[:, None] & inside_at[None, :], other=0.0
        )
        out = multiplied(x, weights, out, DOT)
    if KIND == PRODUCT_LINE:
        tl.store(kept + t * size + rows[:, None] * neurons + at[None, :], out,
                 mask=inside_rows[:, None] & inside_at[None, :])  # fmt: skip
        tl.debug_barrier()
        return read_line(
            kept, index, value, t, steps, rows, inside_rows, at, inside_at, neurons, size, SIGN, TAPS, ROWS, BLOCK
        )
    return out
