"""Compiled sums over rows: a neuron's sequence is one row of numbers, and a delayed synapse a shifted row.

A delay of k steps is an offset of k times the batch, so that a tap is a multiply-add of two contiguous rows, however
long the delay. A piece of a row, ``REGISTERS`` vectors long, stays in registers while all taps of a few inputs pass by,
whose rows, as far as the delays reach back, stay in the first cache until every output has read them.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

from typing import Any

import numpy as np

from delaykit.functional.compiled import compiled
from delaykit.functional.llvm.registers import entry_of, repeated, vectors_of
from delaykit.functional.llvm.rows.layout import TILE

REGISTERS = 7  # vectors in a piece of a row: 14 of AVX2's 16 registers; the other two hold what it is multiplied by
SHORT = 2  # the same where less is left
EVENTS = 4  # the same where events scale whole rows
ROWS = 128  # rows of a gradient that are added up together, from the second cache
CHAINS = 4  # sums of one number that do not wait for each other, where registers would be idle
add_piece: Any = None  # by these names, the kernels find what is made when they are compiled
add_short: Any = None
add_vector: Any = None
add_four: Any = None
add_two: Any = None
add_one: Any = None
add_quarter: Any = None


@compiled(
    intrinsics=lambda numba: {
        "add_piece": make_add(numba, REGISTERS), "add_short": make_add(numba, SHORT),
        "add_vector": make_add(numba, 1), "add_quarter": make_add(numba, 1, 1, 4),
    }
)  # fmt: skip
def mix_rows(source, start, length, lanes, first, place, weight, out, row, width, begin, end):
    """Write ``sum_e weight[e] source[start + n + place[e]]`` over an output's entries to ``out``, for all n < length.

    Args:
        source: flat rows of the inputs.
        start: where the first step of the first row lies.
        length: of a row, ``time * width``.
        lanes: numbers in a vector.
        first: see :func:`~delaykit.functional.llvm.rows.layout.list_taps`, as are place and weight.
        place: where each entry reads.
        weight: of each entry.
        out: ``(time, batch, output)``.
        row: first row of the batch that is written.
        width: rows of the batch.
        begin: of the outputs, to ``end - 1``.
    """
    piece = REGISTERS * lanes
    short, span = SHORT * lanes, piece + 16
    sums = np.empty((end - begin) * span, out.dtype)
    for opening in range(0, length, piece):
        size, base = min(piece, length - opening), start + opening
        for n in range(len(sums)):
            sums[n] = 0
        for block in range(len(first)):
            for r in range(begin, end):
                at, low, high = (r - begin) * span, first[block, r], first[block, r + 1]
                if size == piece:
                    add_piece(sums, at, source, base, place, weight, low, high)
                    continue
                done = 0
                while done + short <= size:
                    add_short(sums, at + done, source, base + done, place, weight, low, high)
                    done += short
                while done + lanes <= size:
                    add_vector(sums, at + done, source, base + done, place, weight, low, high)
                    done += lanes
                while done + lanes // 4 <= size:
                    add_quarter(sums, at + done, source, base + done, place, weight, low, high)
                    done += lanes // 4
                for n in range(done, size):
                    total = sums[at + n]
                    for e in range(low, high):
                        total += weight[e] * source[base + n + place[e]]
                    sums[at + n] = total
        for r in range(begin, end, TILE):
            for n in range(size):
                target = out[(opening + n) // width, row + (opening + n) % width]
                for k in range(r, min(r + TILE, end)):
                    target[k] = sums[(k - begin) * span + n]


@compiled(
    intrinsics=lambda numba: {
        "add_four": make_add(numba, 4, CHAINS), "add_two": make_add(numba, 2, CHAINS),
        "add_one": make_add(numba, 1, CHAINS), "add_quarter": make_add(numba, 1, CHAINS, 4),
    }
)  # fmt: skip
def read_taps(flat, at, lanes, first, place, weight, out):
    """Add ``sum_e weight[e] flat[at + place[e] + n]`` over an output's entries to ``out[r, n]``: one step of a tape.

    Numbers are summed up in the same order wherever they lie. For the entries see :func:`mix_rows`.
    """
    outputs, chunk = out.shape
    result = out.reshape(-1)
    for block in range(len(first)):
        for r in range(outputs):
            to, low, high, n = r * chunk, first[block, r], first[block, r + 1], 0
            if low == high:
                continue
            while n + 4 * lanes <= chunk:
                add_four(result, to + n, flat, at + n, place, weight, low, high)
                n += 4 * lanes
            while n + 2 * lanes <= chunk:
                add_two(result, to + n, flat, at + n, place, weight, low, high)
                n += 2 * lanes
            while n + lanes <= chunk:
                add_one(result, to + n, flat, at + n, place, weight, low, high)
                n += lanes
            while n + lanes // 4 <= chunk:
                add_quarter(result, to + n, flat, at + n, place, weight, low, high)
                n += lanes // 4
            whole = low + (high - low) // CHAINS * CHAINS
            for k in range(n, chunk):
                source, zero = at + k, out.dtype.type(0)
                s0, s1, s2, s3 = result[to + k], zero, zero, zero
                for e in range(low, whole, CHAINS):
                    s0 += weight[e] * flat[source + place[e]]
                    s1 += weight[e + 1] * flat[source + place[e + 1]]
                    s2 += weight[e + 2] * flat[source + place[e + 2]]
                    s3 += weight[e + 3] * flat[source + place[e + 3]]
                for e in range(whole, high):
                    s0 += weight[e] * flat[source + place[e]]
                result[to + k] = s0 + s1 + s2 + s3


def add_scaled(out, at, length, lanes, flat, place, size, first, last):
    """Add ``sum_e size[e] flat[place[e] + n]`` to ``out[at + n]``, e = first .. last - 1, for all n < length."""
    done = 0
    while done + EVENTS * lanes <= length:
        add_piece(out, at + done, flat, done, place, size, first, last)
        done += EVENTS * lanes
    while done + lanes <= length:
        add_vector(out, at + done, flat, done, place, size, first, last)
        done += lanes
    for n in range(done, length):
        for e in range(first, last):
            out[at + n] += size[e] * flat[place[e] + n]


@compiled(
    parts=(add_scaled,),
    intrinsics=lambda numba: {"add_piece": make_add(numba, EVENTS), "add_vector": make_add(numba, 1)},
)
def add_events(x, matrix, out, lanes, begin, end):
    """Add ``x @ matrix`` to ``out`` for the rows ``begin`` to ``end - 1`` of x, by the numbers that are not 0."""
    inputs, outputs = matrix.shape
    flat, result = matrix.reshape(-1), out.reshape(-1)
    place, size = np.empty(inputs + 1, np.int64), np.empty(inputs + 1, x.dtype)
    for r in range(begin, end):
        row, used = x[r], 0
        for n in range(inputs):
            place[used], size[used] = n * outputs, row[n]
            used += row[n] != 0
        add_scaled(result, r * outputs, outputs, lanes, flat, place, size, 0, used)


@compiled(
    parts=(add_scaled,),
    intrinsics=lambda numba: {"add_piece": make_add(numba, EVENTS), "add_vector": make_add(numba, 1)},
)
def correlate_events(x, grad, out, lanes, begin, end):
    """Add ``x.T @ grad`` to ``out`` for the columns ``begin`` to ``end - 1`` of x, by the numbers that are not 0."""
    rows, outputs = grad.shape
    flat, result = grad.reshape(-1), out.reshape(-1)
    count, few = np.empty(end - begin, np.int64), ROWS + 1
    place, size = np.empty((end - begin) * few, np.int64), np.empty((end - begin) * few, x.dtype)
    for start in range(0, rows, ROWS):
        for n in range(end - begin):
            count[n] = n * few
        for r in range(start, min(start + ROWS, rows)):
            row = x[r, begin:end]
            for n in range(end - begin):
                place[count[n]], size[count[n]] = r * outputs, row[n]
                count[n] += row[n] != 0
        for n in range(end - begin):
            add_scaled(result, (begin + n) * outputs, outputs, lanes, flat, place, size, n * few, count[n])


def make_add(numba: Any, registers: int, chains: int = 1, share: int = 1) -> Any:
    """Make ``add(out, at, flat, base, place, weight, first, last)`` for so many vectors of numbers, or a share of one.

    ``out[at + n] += sum_e weight[e] flat[base + place[e] + n]``, e = first .. last - 1, every ``chains``-th in a sum of
    its own; all arrays are flat and contiguous, sums have the type of ``out``, nothing is bounds-checked.
    """
    from llvmlite import ir  # type: ignore[import-untyped]
    from numba.core import cgutils, types
    from numba.extending import intrinsic

    @intrinsic
    def add(typingctx, out, at, flat, base, place, weight, first, last):
        index = types.intp
        signature = types.void(out, index, flat, index, place, weight, index, index)

        def generate(context, builder, sig, args):
            row, pointer = vectors_of(context, builder, sig, args, share)
            kept = [pointer(0, args[1], k) for k in range(registers)]
            sums = [[cgutils.alloca_once_value(builder, builder.load(k, align=4)) for k in kept]]
            empty = ir.Constant(row, None)
            sums += [[cgutils.alloca_once_value(builder, empty) for _ in kept] for _ in range(chains - 1)]

            def take(e, totals):
                source = builder.add(args[3], entry_of(context, builder, sig, args, 4, e))
                scale = repeated(builder, entry_of(context, builder, sig, args, 5, e), row)
                for k, total in enumerate(totals):
                    values = builder.load(pointer(2, source, k), align=4)
                    values = values if values.type == row else builder.fpext(values, row)
                    product = builder.fmul(scale, values, flags=("contract",))
                    builder.store(builder.fadd(builder.load(total), product, flags=("contract",)), total)

            one, many = ir.Constant(args[6].type, 1), ir.Constant(args[6].type, chains)
            count = builder.sub(args[7], args[6])
            with cgutils.for_range(builder, builder.udiv(count, many)) as loop:
                e = builder.add(args[6], builder.mul(loop.index, many))
                for totals in sums:
                    take(e, totals)
                    e = builder.add(e, one)
            if chains > 1:
                rest = builder.urem(count, many)
                with cgutils.for_range(builder, rest) as loop:
                    take(builder.add(builder.sub(args[7], rest), loop.index), sums[0])
            for k, place in enumerate(kept):
                found = builder.load(sums[0][k])
                for totals in sums[1:]:
                    found = builder.fadd(found, builder.load(totals[k]))
                builder.store(found, place, align=4)
            return context.get_dummy_value()

        return signature, generate

    return add
