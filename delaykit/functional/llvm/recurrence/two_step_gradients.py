"""Compiled correlation of synapses whose delays lie between two steps: both sums at once, in vector registers."""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

from typing import Any

from delaykit.functional.compiled import DOT_PRODUCTS, compiled
from delaykit.functional.llvm.recurrence.pairs import make_dot_pairs, make_turn
from delaykit.functional.llvm.rows.layout import TOGETHER

STEPS = 8  # that are multiplied at once, one vector each
dot_pairs: Any = None  # by these names, the kernels find what is made when they are compiled
turn: Any = None


@compiled(intrinsics=lambda numba: {"turn": make_turn(numba)})
def lay_steps(x, first, pad, stride, lanes, rows):
    """Write rows ``first .. first + lanes - 1`` of a batch to ``rows``, ``(pad + t) * lanes + b`` in a neuron's stride.

    What lies before and behind a row, and the rows that the batch does not have, are silence.
    """
    time, batch, neurons = x.shape
    flat, width = x.reshape(-1), min(lanes, batch - first)
    whole = neurons // lanes * lanes if width == lanes else 0
    for q in range(neurons):
        for n in range(pad * lanes):
            rows[q * stride + n] = 0
        for n in range((pad + time) * lanes, stride):
            rows[q * stride + n] = 0
    for t in range(time):
        base, at = (t * batch + first) * neurons, (pad + t) * lanes
        for q in range(0, whole, lanes):
            turn(rows, q * stride + at, stride, flat, base + q, neurons)
        for q in range(whole, neurons):
            for b in range(width):
                rows[q * stride + at + b] = flat[base + b * neurons + q]
            for b in range(width, lanes):
                rows[q * stride + at + b] = 0


@compiled(DOT_PRODUCTS, intrinsics=lambda numba: {"dot_pairs": make_dot_pairs(numba, STEPS)})
def correlate_between(source, target, pad, time, stride, lanes, cell, low, high, begin, end):
    """Add ``sum_n target[r, n] source[q, n - cell[r, q]]`` to ``low[r, q]``, and of a step earlier to ``high[r, q]``.

    Args:
        source: flat rows of the inputs, behind ``pad`` steps of silence; those that are there for nothing, too.
        target: flat rows of the outputs, as long, followed by silence up to a multiple of ``STEPS``.
        pad: steps, the first of which nothing is left of.
        time: steps.
        stride: of a row.
        lanes: numbers in a step.
        cell: ``(block, post, few)``: few inputs at a time, whose rows all outputs read from the first cache; their
            number is a multiple of ``TOGETHER``.
        low: like ``cell``, is added to, as is high.
        high: see low.
        begin: of the outputs, to ``end - 1``.
    """
    blocks, outputs, few = cell.shape
    places, lows, highs = cell.reshape(-1), low.reshape(-1), high.reshape(-1)
    for opening in range(0, time, STEPS):
        for block in range(blocks):
            base = block * few * stride + (pad + opening) * lanes
            for r in range(begin, end):
                at, to = r * stride + opening * lanes, (block * outputs + r) * few
                for q in range(0, few, TOGETHER):
                    near, n = base + q * stride, to + q
                    dot_pairs(lows, highs, n, source, near, places, stride, lanes, pad - 1, target, at)
