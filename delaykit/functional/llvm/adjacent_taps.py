"""Compiled sums of channels whose taps lie next to each other: a channel is moved once, and then read row by row.

A delay between two steps has two taps, one a step behind the other. So each number of a sequence is put where its
channel's first tap reads it, one move whatever the number of taps; what remains are sums of whole rows of channels, in
vector registers. Forwards a row holds what has arrived; backwards, the gradients that wait for an input.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

from typing import Any

import numpy as np

from delaykit.functional.compiled import compiled
from delaykit.functional.llvm.registers import vectors_of

BLOCK = 256  # channels at a time: enough of them to be read in one go, and few enough to be kept in a cache
UNIT = 32  # channels at a time within registers
PART = 64  # steps summed up in the dtype of the sequence before they go into a sum in float64
sum_rows: Any = None  # by these names, the kernels find what is made when they are compiled
correlate_rows: Any = None


def place_late(x, b, start, size, where, line):
    """Put the channels ``start ..`` of a batch row into ``line``, channel c of step t at ``where[c] + t * BLOCK``."""
    for t in range(x.shape[0]):
        row, base = x[t, b, start : start + size], t * BLOCK
        for c in range(size):
            line[where[c] + base] = row[c]


@compiled(parts=(place_late,), intrinsics=lambda numba: {"sum_rows": make_sum_rows(numba)})
def filter_narrow(x, late, factor, sign, out, first, last):
    """Write ``sum_r factor[r, c] x[t + sign (late[c] + r), b, c]`` to ``out[t, b, c]``.

    Args:
        x: ``(time, batch, channel)``.
        late: first tap of each channel, at most ``time``.
        factor: ``(reach, channel)``.
        sign: -1 forwards, 1 backwards.
        out: like ``x``, is written.
        first: of the rows of the batch, to ``last - 1``.
    """
    time, batch, channels = x.shape
    reach, longest = len(factor), 0
    for c in range(channels):
        longest = max(longest, late[c])
    where, flat, rest = np.empty(BLOCK, np.int64), out.reshape(-1), np.zeros(UNIT, x.dtype)
    by = np.zeros(reach * BLOCK, x.dtype)
    for start in range(0, channels, BLOCK):
        size = min(BLOCK, channels - start)
        line = np.zeros((time + longest + reach) * BLOCK, x.dtype)  # what is written is so for each row of the batch
        for c in range(size):
            where[c] = c + BLOCK * (late[start + c] + reach - 1 if sign < 0 else longest - late[start + c])
            for r in range(reach):
                by[(reach - 1 - r if sign < 0 else r) * BLOCK + c] = factor[r, start + c]
        for b in range(first, last):
            place_late(x, b, start, size, where, line)
            for t in range(time):
                at, to = BLOCK * (t if sign < 0 else longest + t), (t * batch + b) * channels + start
                for unit in range(0, size, UNIT):
                    if unit + UNIT <= size:
                        sum_rows(flat, to + unit, line, at + unit, by, unit, reach)
                    else:
                        sum_rows(rest, 0, line, at + unit, by, unit, reach)
                        for c in range(unit, size):
                            flat[to + c] = rest[c - unit]


@compiled(
    parts=(place_late,),
    intrinsics=lambda numba: {"sum_rows": make_sum_rows(numba), "correlate_rows": make_correlate_rows(numba)},
)
def gradients_narrow(x, y, late, factor, wants, out, shares, first, last):
    """Go back through ``filter_narrow``: write the gradient of x to ``out``, and add up that of ``factor``.

    Args:
        x: what was filtered, ``(time, batch, channel)``.
        y: gradient of what came out.
        late: first tap of each channel, at most ``time``.
        factor: ``(reach, channel)``.
        wants: whether ``out`` is written.
        out: like ``x``.
        shares: ``(batch, reach, channel)``, float64 zeros, the sums over time.
        first: of the rows of the batch, to ``last - 1``.
    """
    time, batch, channels = x.shape
    reach, longest = len(factor), 0
    for c in range(channels):
        longest = max(longest, late[c])
    where, sums, flat = np.empty(BLOCK, np.int64), np.zeros(reach * BLOCK, x.dtype), x.reshape(-1)
    by, rest, target = np.zeros(reach * BLOCK, x.dtype), np.zeros(UNIT, x.dtype), out.reshape(-1)
    for start in range(0, channels, BLOCK):
        size = min(BLOCK, channels - start)
        line = np.zeros((time + longest + reach) * BLOCK, x.dtype)
        for c in range(size):
            where[c] = c + BLOCK * (longest - late[start + c])
            for r in range(reach):
                by[r * BLOCK + c] = factor[r, start + c]
        for b in range(first, last):
            place_late(y, b, start, size, where, line)
            for part in range(0, time, PART):
                for t in range(part, min(part + PART, time)):
                    at, here = BLOCK * (longest + t), (t * batch + b) * channels + start
                    for unit in range(0, size, UNIT):
                        if unit + UNIT <= size:
                            correlate_rows(sums, unit, flat, here + unit, line, at + unit, reach)
                            if wants:
                                sum_rows(target, here + unit, line, at + unit, by, unit, reach)
                            continue
                        for c in range(unit, size):
                            rest[c - unit] = flat[here + c]
                        correlate_rows(sums, unit, rest, 0, line, at + unit, reach)
                        if wants:
                            sum_rows(rest, 0, line, at + unit, by, unit, reach)
                            for c in range(unit, size):
                                target[here + c] = rest[c - unit]
                for r in range(reach):
                    for c in range(size):
                        shares[b, r, start + c] += sums[r * BLOCK + c]
                for n in range(len(sums)):
                    sums[n] = 0


def make_sum_rows(numba: Any) -> Any:
    """Make ``sum_rows(out, at, line, place, by, unit, reach)``, all arrays flat, contiguous and of one type.

    ``out[at + c] = sum_r by[unit + r BLOCK + c] line[place + r BLOCK + c]``, r < reach, c < UNIT; where ``by`` is 0,
    nothing is added, whatever ``line`` holds.
    """
    from llvmlite import ir  # type: ignore[import-untyped]
    from numba.core import cgutils, types
    from numba.extending import intrinsic

    @intrinsic
    def sum_rows(typingctx, out, at, line, place, by, unit, reach):
        signature = types.void(out, types.intp, line, types.intp, by, types.intp, types.intp)

        def generate(context, builder, sig, args):
            row, pointer = vectors_of(context, builder, sig, args)
            parts = UNIT // row.count
            sums = [cgutils.alloca_once_value(builder, ir.Constant(row, None)) for _ in range(parts)]
            with cgutils.for_range(builder, args[6]) as loop:
                behind = builder.mul(loop.index, ir.Constant(loop.index.type, BLOCK))
                source, scale = builder.add(args[3], behind), builder.add(args[5], behind)
                for k, kept in enumerate(sums):
                    factor = builder.load(pointer(4, scale, k), align=4)
                    product = builder.fmul(factor, builder.load(pointer(2, source, k), align=4), flags=("contract",))
                    before = builder.load(kept)
                    used = builder.fcmp_unordered("!=", factor, ir.Constant(row, None))
                    added = builder.fadd(before, product, flags=("contract",))
                    builder.store(builder.select(used, added, before), kept)
            for k, kept in enumerate(sums):
                builder.store(builder.load(kept), pointer(0, args[1], k), align=4)
            return context.get_dummy_value()

        return signature, generate

    return sum_rows


def make_correlate_rows(numba: Any) -> Any:
    """Make ``correlate_rows(sums, unit, given, at, line, place, reach)``, all arrays flat, contiguous, of one type.

    ``sums[unit + r BLOCK + c] += given[at + c] line[place + r BLOCK + c]``, r < reach, c < UNIT.
    """
    from llvmlite import ir
    from numba.core import cgutils, types
    from numba.extending import intrinsic

    @intrinsic
    def correlate_rows(typingctx, sums, unit, given, at, line, place, reach):
        signature = types.void(sums, types.intp, given, types.intp, line, types.intp, types.intp)

        def generate(context, builder, sig, args):
            row, pointer = vectors_of(context, builder, sig, args)
            parts = UNIT // row.count
            values = [builder.load(pointer(2, args[3], k), align=4) for k in range(parts)]
            with cgutils.for_range(builder, args[6]) as loop:
                behind = builder.mul(loop.index, ir.Constant(loop.index.type, BLOCK))
                source, total = builder.add(args[5], behind), builder.add(args[1], behind)
                for k, value in enumerate(values):
                    kept = pointer(0, total, k)
                    product = builder.fmul(value, builder.load(pointer(4, source, k), align=4), flags=("contract",))
                    found = builder.fadd(builder.load(kept, align=4), product, flags=("contract",))
                    builder.store(found, kept, align=4)
            return context.get_dummy_value()

        return signature, generate

    return correlate_rows
