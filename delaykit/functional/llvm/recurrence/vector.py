"""Sums of scaled rows in vector registers: the inner loops of per-synapse delays on the CPU.

Rows of spikes are 0 or 1 and packed, eight numbers a byte: what they multiply is then added under a mask.

Written as LLVM vector operations: the loop that Numba compiles from Python stores the sum to memory after every tap,
and asks before every row whether the arrays overlap, which costs several times the arithmetic. Rows of torch's tensors
are aligned; rows that are not cost twice the loads.
"""

from __future__ import annotations

import functools
from typing import Any

from delaykit.functional.llvm.registers import LANES, repeated


@functools.cache
def vector_read() -> Any:
    """Compile ``read(flat, at, first, place, weight, out)`` on first use.

    ``out[i] = sum_e weight[e] flat[at + place[e] ...]``, e = first[i] .. first[i + 1] - 1, out ``(rows, batch)``.
    """
    import numba

    wide, narrow = make_gather(numba, 32), make_gather(numba, 8)

    @numba.njit(nogil=True)
    def read(flat, at, first, place, weight, out):  # type: ignore[no-untyped-def]
        rows, batch = out.shape
        result = out.reshape(-1)
        for i in range(rows):
            b = 0
            while b + 32 <= batch:
                wide(result, i * batch + b, flat, at + b, place, weight, first[i], first[i + 1])
                b += 32
            while b + 8 <= batch:
                narrow(result, i * batch + b, flat, at + b, place, weight, first[i], first[i + 1])
                b += 8
            for rest in range(b, batch):
                total = 0.0
                for e in range(first[i], first[i + 1]):
                    total += weight[e] * flat[at + place[e] + rest]
                result[i * batch + rest] = total

    return read


def make_gather(numba: Any, width: int) -> Any:
    """Make ``gather(out, out_at, flat, at, place, weight, first, last)`` for ``width`` numbers, a multiple of 8.

    ``out[out_at + b] = sum_e weight[e] flat[at + place[e] + b]``, e = first .. last - 1, b < width; all arrays are flat
    and contiguous, nothing is bounds-checked; sums and ``out`` have the type of ``weight``.
    """
    from llvmlite import ir  # type: ignore[import-untyped]
    from numba.core import cgutils, types
    from numba.extending import intrinsic
    from numba.np.arrayobj import make_array

    @intrinsic
    def gather(typingctx, out, out_at, flat, at, place, weight, first, last):  # type: ignore[no-untyped-def]
        signature = types.void(out, types.intp, flat, types.intp, place, weight, types.intp, types.intp)

        def generate(context, builder, sig, args):  # type: ignore[no-untyped-def]
            def pointer(position):  # type: ignore[no-untyped-def]
                return make_array(sig.args[position])(context, builder, args[position]).data

            row = ir.VectorType(context.get_value_type(sig.args[2].dtype), LANES)
            total = ir.VectorType(context.get_value_type(sig.args[5].dtype), LANES)
            out_data, flat_data, place_data, weight_data = (pointer(k) for k in (0, 2, 4, 5))
            sums = [cgutils.alloca_once_value(builder, ir.Constant(total, None)) for _ in range(width // LANES)]
            with cgutils.for_range(builder, builder.sub(args[7], args[6])) as loop:
                e = builder.add(args[6], loop.index)
                source = builder.add(args[3], builder.load(builder.gep(place_data, [e])))
                scale = builder.load(builder.gep(weight_data, [e]))
                scales = repeated(builder, scale, total)
                for k, kept in enumerate(sums):
                    at = builder.gep(flat_data, [builder.add(source, ir.Constant(source.type, k * LANES))])
                    values = builder.load(builder.bitcast(at, row.as_pointer()), align=4)
                    if row != total:
                        values = builder.fpext(values, total)
                    product = builder.fmul(scales, values, flags=("contract",))
                    builder.store(builder.fadd(builder.load(kept), product, flags=("contract",)), kept)
            for k, kept in enumerate(sums):
                at = builder.gep(out_data, [builder.add(args[1], ir.Constant(args[1].type, k * LANES))])
                builder.store(builder.load(kept), builder.bitcast(at, total.as_pointer()), align=4)
            return context.get_dummy_value()

        return signature, generate

    return gather


def make_add_rows(numba: Any, width: int, count: int) -> Any:
    """Make ``add_rows(target, at, source, places, scales)`` for ``width`` numbers, a multiple of 8.

    ``target[at + b] += sum_n scales[n] source[places[n] + b]``, n < count, b < width; places and scales are tuples, the
    arrays are flat, contiguous and of one type, nothing is bounds-checked.
    """
    from llvmlite import ir
    from numba.core import types
    from numba.extending import intrinsic
    from numba.np.arrayobj import make_array

    @intrinsic
    def add_rows(typingctx, target, at, source, places, scales):  # type: ignore[no-untyped-def]
        kind = source.dtype
        signature = types.void(
            target, types.intp, source, types.UniTuple(types.intp, count), types.UniTuple(kind, count)
        )

        def generate(context, builder, sig, args):  # type: ignore[no-untyped-def]
            row = ir.VectorType(context.get_value_type(kind), LANES)
            target_data, source_data = (make_array(sig.args[k])(context, builder, args[k]).data for k in (0, 2))
            given = [repeated(builder, builder.extract_value(args[4], n), row) for n in range(count)]

            def place(data, start, k):  # type: ignore[no-untyped-def]
                at = builder.add(start, ir.Constant(start.type, k * LANES))
                return builder.bitcast(builder.gep(data, [at]), row.as_pointer())

            for k in range(width // LANES):
                kept = place(target_data, args[1], k)
                total = builder.load(kept, align=kind.bitwidth // 8)
                for n, scale in enumerate(given):
                    values = builder.load(
                        place(source_data, builder.extract_value(args[3], n), k), align=kind.bitwidth // 8
                    )
                    product = builder.fmul(scale, values, flags=("contract",))
                    total = builder.fadd(total, product, flags=("contract",))
                builder.store(total, kept, align=kind.bitwidth // 8)
            return context.get_dummy_value()

        return signature, generate

    return add_rows


def make_add_bits(numba: Any, width: int, count: int) -> Any:
    """Make ``add_bits(target, places, bits, at, scales)`` for ``width`` numbers, a multiple of 8.

    ``target[places[n] + b] += scales[n] bit(at, b)`` for every n < count, where ``bit(k, b)`` is bit b % 8 of
    ``bits[k + b // 8]``, uint8.
    """
    from llvmlite import ir
    from numba.core import types
    from numba.extending import intrinsic
    from numba.np.arrayobj import make_array

    @intrinsic
    def add_bits(typingctx, target, places, bits, at, scales):  # type: ignore[no-untyped-def]
        kind = target.dtype
        signature = types.void(target, types.UniTuple(types.intp, count), bits, types.intp, types.UniTuple(kind, count))

        def generate(context, builder, sig, args):  # type: ignore[no-untyped-def]
            total, parts = _lanes(context.get_value_type(kind), kind.bitwidth, width)
            target_data, bits_data = (make_array(sig.args[k])(context, builder, args[k]).data for k in (0, 2))
            masks = _masks(builder, bits_data, args[3], total, parts)
            for n in range(count):
                scales, start = (builder.extract_value(args[k], n) for k in (4, 1))
                added = repeated(builder, scales, total)
                for k, mask in enumerate(masks):
                    at = builder.gep(target_data, [builder.add(start, ir.Constant(start.type, k * total.count))])
                    kept = builder.bitcast(at, total.as_pointer())
                    before = builder.load(kept, align=kind.bitwidth // 8)
                    chosen = builder.select(mask, added, ir.Constant(total, None))
                    builder.store(builder.fadd(before, chosen), kept, align=kind.bitwidth // 8)
            return context.get_dummy_value()

        return signature, generate

    return add_bits


def make_sum_bits(numba: Any, width: int, count: int) -> Any:
    """Make ``sum_bits(source, places, bits, at)`` for ``width`` numbers, a multiple of 8: a tuple of ``count`` sums.

    The n-th is ``sum_b source[places[n] + b] bit(at, b)``, see ``make_add_bits``; count is 1 or 2.
    """
    from llvmlite import ir
    from numba.core import types
    from numba.extending import intrinsic
    from numba.np.arrayobj import make_array

    @intrinsic
    def sum_bits(typingctx, source, places, bits, at):  # type: ignore[no-untyped-def]
        kind = source.dtype
        signature = types.UniTuple(kind, count)(source, types.UniTuple(types.intp, count), bits, types.intp)

        def generate(context, builder, sig, args):  # type: ignore[no-untyped-def]
            total, parts = _lanes(context.get_value_type(kind), kind.bitwidth, width)
            source_data, bits_data = (make_array(sig.args[k])(context, builder, args[k]).data for k in (0, 2))
            masks, zero, sums = _masks(builder, bits_data, args[3], total, parts), ir.Constant(total, None), []
            for n in range(count):
                start, found = builder.extract_value(args[1], n), zero
                for k, mask in enumerate(masks):
                    place = builder.gep(source_data, [builder.add(start, ir.Constant(start.type, k * total.count))])
                    values = builder.load(builder.bitcast(place, total.as_pointer()), align=kind.bitwidth // 8)
                    found = builder.fadd(found, builder.select(mask, values, zero), flags=("nsz",))
                sums.append(found)
            lanes = total.count
            while lanes > 4:  # halves of each sum are added; within a register, those of all sums at a time
                sums = [_folded(builder, x, x, 1, lanes) for x in sums]
                lanes //= 2
            joined = _folded(builder, sums[0], sums[-1], count, lanes)
            while lanes > 2:
                lanes //= 2
                joined = _folded(builder, joined, joined, count, lanes)
            found = [builder.extract_element(joined, ir.Constant(ir.IntType(32), n)) for n in range(count)]
            return context.make_tuple(builder, sig.return_type, found)

        return signature, generate

    return sum_bits


def _folded(builder: Any, joined: Any, other: Any, count: int, lanes: int) -> Any:
    """Add the halves of each of ``count`` rows of lanes, which lie one after the other in ``joined`` and ``other``."""
    from llvmlite import ir

    low = [n * lanes + k for n in range(count) for k in range(lanes // 2)]
    index = ir.VectorType(ir.IntType(32), len(low))
    halves = (ir.Constant(index, [k + more for k in low]) for more in (0, lanes // 2))
    return builder.fadd(*(builder.shuffle_vector(joined, other, half) for half in halves))


def _lanes(kind: Any, bits: int, width: int) -> tuple[Any, int]:
    """Return the vector type for rows of this width, of 64 bytes where they are long enough, and how many a row."""
    from llvmlite import ir

    lanes = min(width, 512 // bits)
    return ir.VectorType(kind, lanes), width // lanes


def _masks(builder: Any, bits_data: Any, at: Any, total: Any, parts: int) -> list[Any]:
    """Load the bits of a row as masks of its vectors."""
    from llvmlite import ir

    masks = []
    for k in range(parts):
        place = builder.gep(bits_data, [builder.add(at, ir.Constant(at.type, k * total.count // 8))])
        word = builder.load(builder.bitcast(place, ir.IntType(total.count).as_pointer()), align=1)
        masks.append(builder.bitcast(word, ir.VectorType(ir.IntType(1), total.count)))
    return masks
