"""Sums over delayed rows, each number between two steps, in vector registers: intrinsics of compiled kernels."""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

from typing import Any

from delaykit.functional.llvm.registers import data_of, entry_of, repeated, vectors_of
from delaykit.functional.llvm.rows.dots import summed
from delaykit.functional.llvm.rows.layout import TOGETHER


def make_add_pairs(numba: Any, steps: int) -> Any:
    """Make ``add(out, at, flat, base, place, low, high, first, last)`` for rows of so many steps, a vector each.

    ``out[at + n] += sum_e low[e] flat[base + place[e] + n] + high[e] flat[base + place[e] + n - width]`` for all n in
    ``steps`` times ``width`` numbers, those of a vector; e = first .. last - 1. What two steps share is loaded once.
    All arrays are flat, contiguous and of one type, nothing is bounds-checked.
    """
    from llvmlite import ir  # type: ignore[import-untyped]
    from numba.core import cgutils, types
    from numba.extending import intrinsic

    @intrinsic
    def add(typingctx, out, at, flat, base, place, low, high, first, last):
        index = types.intp
        signature = types.void(out, index, flat, index, place, low, high, index, index)

        def generate(context, builder, sig, args):
            row, pointer = vectors_of(context, builder, sig, args)
            kept = [pointer(0, args[1], k) for k in range(steps)]
            sums = [cgutils.alloca_once_value(builder, builder.load(k, align=4)) for k in kept]
            before = ir.Constant(args[3].type, -row.count)

            def gain(total, scale, values):
                product = builder.fmul(scale, values, flags=("contract",))
                builder.store(builder.fadd(builder.load(total), product, flags=("contract",)), total)

            with cgutils.for_range(builder, builder.sub(args[8], args[7])) as loop:
                e = builder.add(args[7], loop.index)
                source = builder.add(builder.add(args[3], before), entry_of(context, builder, sig, args, 4, e))
                scales = [repeated(builder, entry_of(context, builder, sig, args, n, e), row) for n in (5, 6)]
                read = [builder.load(pointer(2, source, k), align=4) for k in range(steps + 1)]
                for k, total in enumerate(sums):
                    gain(total, scales[0], read[k + 1])
                for k, total in enumerate(sums):
                    gain(total, scales[1], read[k])
            for total, place in zip(sums, kept, strict=True):
                builder.store(builder.load(total), place, align=4)
            return context.get_dummy_value()

        return signature, generate

    return add


def make_turn(numba: Any) -> Any:
    """Make ``turn(out, at, step, flat, base, stride)``: transpose as many rows as a vector has numbers.

    ``out[at + n step + m] = flat[base + m stride + n]`` for all m and n < lanes; nothing is bounds-checked.
    """
    from llvmlite import ir
    from numba.core import types
    from numba.extending import intrinsic

    @intrinsic
    def turn(typingctx, out, at, step, flat, base, stride):
        index = types.intp
        signature = types.void(out, index, index, flat, index, index)

        def generate(context, builder, sig, args):
            row, pointer = vectors_of(context, builder, sig, args)
            lanes = row.count

            def places(argument, start, distance):
                for _ in range(lanes):
                    yield pointer(argument, start, 0)
                    start = builder.add(start, distance)

            rows = [builder.load(place, align=4) for place in places(3, args[4], args[5])]
            apart = 1
            while apart < lanes:  # blocks of so many numbers and rows change places
                low = [k if not k & apart else lanes + k - apart for k in range(lanes)]
                high = [k + apart if not k & apart else lanes + k for k in range(lanes)]
                kind = ir.VectorType(ir.IntType(32), lanes)
                for m in range(lanes):
                    if not m & apart:
                        a, b = rows[m], rows[m + apart]
                        rows[m] = builder.shuffle_vector(a, b, ir.Constant(kind, low))
                        rows[m + apart] = builder.shuffle_vector(a, b, ir.Constant(kind, high))
                apart *= 2
            for values, place in zip(rows, places(0, args[1], args[2]), strict=True):
                builder.store(values, place, align=4)
            return context.get_dummy_value()

        return signature, generate

    return turn


def make_dot_pairs(numba: Any, steps: int) -> Any:
    """Make ``dot(low, high, to, flat, base, cell, stride, width, most, other, at)`` for so many steps of a vector each.

    With ``place[e] = base + e stride - min(cell[to + e], most) width`` and for TOGETHER e from 0, add
    ``sum_n other[at + n] flat[place[e] + n]`` to ``low[to + e]`` and ``sum_n other[at + n] flat[place[e] - width + n]``
    to ``high[to + e]``, n < steps times width, which is that of a vector. Arrays are flat, contiguous and, but for
    ``cell``, of one type, nothing is bounds-checked.
    """
    from llvmlite import ir
    from numba.core import types
    from numba.extending import intrinsic

    @intrinsic
    def dot(typingctx, low, high, to, flat, base, cell, stride, width, most, other, at):
        index = types.intp
        signature = types.void(low, high, index, flat, index, cell, index, index, index, other, index)

        def generate(context, builder, sig, args):
            row, pointer = vectors_of(context, builder, sig, args)
            given = [builder.load(pointer(9, args[10], k), align=4) for k in range(steps)]
            lows: list[Any] = []
            highs: list[Any] = []
            source = args[4]
            for e in range(TOGETHER):
                entry = builder.add(args[2], ir.Constant(args[2].type, e))
                step = entry_of(context, builder, sig, args, 5, entry)
                step = builder.select(builder.icmp_signed("<", step, args[8]), step, args[8])
                place = builder.sub(source, builder.mul(builder.add(step, ir.Constant(step.type, 1)), args[7]))
                read = [builder.load(pointer(3, place, k), align=4) for k in range(steps + 1)]
                for sums, values in ((lows, read[1:]), (highs, read[:-1])):
                    chains = [ir.Constant(row, None)] * min(2, steps)  # sums that do not wait for each other
                    for k, (a, b) in enumerate(zip(given, values, strict=True)):
                        product = builder.fmul(a, b, flags=("contract",))
                        chains[k % 2] = builder.fadd(chains[k % 2], product, flags=("contract",))
                    sums.append(chains[0] if len(chains) == 1 else builder.fadd(*chains))
                source = builder.add(source, args[6])
            for argument, sums in ((0, lows), (1, highs)):
                found = summed(builder, sums, row.count)
                kept = builder.gep(data_of(context, builder, sig, args, argument), [args[2]])
                kept = builder.bitcast(kept, found.type.as_pointer())
                builder.store(builder.fadd(builder.load(kept, align=4), found), kept, align=4)
            return context.get_dummy_value()

        return signature, generate

    return dot
