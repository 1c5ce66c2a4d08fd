"""Compiled dot products of rows: what a synapse's tap has seen and what came of it, summed over the sequence."""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

from typing import Any

from delaykit.functional.compiled import DOT_PRODUCTS, compiled
from delaykit.functional.llvm.registers import data_of, entry_of, vectors_of
from delaykit.functional.llvm.rows.layout import TOGETHER
from delaykit.functional.llvm.rows.sums import REGISTERS

dot_piece: Any = None  # by these names, the kernel finds what is made when it is compiled
dot_vector: Any = None


@compiled(
    DOT_PRODUCTS,
    intrinsics=lambda numba: {"dot_piece": make_dot(numba, REGISTERS), "dot_vector": make_dot(numba, 1)},
)
def dot_rows(source, start, target, length, stride, lanes, first, place, total, begin, end):
    """Add ``sum_n target[r, n] source[start + n + place[e]]`` to ``total[e]`` for every entry e of an output r.

    ``target`` are flat rows of the outputs, ``stride`` apart; for the others see
    :func:`~delaykit.functional.llvm.rows.sums.mix_rows`.
    """
    piece = REGISTERS * lanes
    for opening in range(0, length, piece):
        size, base = min(piece, length - opening), start + opening
        for block in range(len(first)):
            for r in range(begin, end):
                at, low, high = r * stride + opening, first[block, r], first[block, r + 1]
                if size == piece:
                    dot_piece(total, source, base, place, target, at, low, high)
                    continue
                done = 0
                while done + lanes <= size:
                    dot_vector(total, source, base + done, place, target, at + done, low, high)
                    done += lanes
                for e in range(low, high if done < size else low):
                    found = total.dtype.type(0)
                    for n in range(done, size):
                        found += target[at + n] * source[base + n + place[e]]
                    total[e] += found


def make_dot(numba: Any, registers: int) -> Any:
    """Make ``dot(total, flat, base, place, other, at, first, last)`` for so many vectors of numbers.

    ``total[e] += sum_n other[at + n] flat[base + place[e] + n]``, e = first .. last - 1, a multiple of TOGETHER of
    them; all arrays are flat, contiguous and of one type, nothing is bounds-checked.
    """
    from llvmlite import ir  # type: ignore[import-untyped]
    from numba.core import cgutils, types
    from numba.extending import intrinsic

    @intrinsic
    def dot(typingctx, total, flat, base, place, other, at, first, last):
        index = types.intp
        signature = types.void(total, flat, index, place, other, index, index, index)

        def generate(context, builder, sig, args):
            row, pointer = vectors_of(context, builder, sig, args)
            given = [builder.load(pointer(4, args[5], k), align=4) for k in range(registers)]
            together = ir.Constant(args[6].type, TOGETHER)
            with cgutils.for_range(builder, builder.udiv(builder.sub(args[7], args[6]), together)) as loop:
                e = builder.add(args[6], builder.mul(loop.index, together))
                sums = []
                for n in range(TOGETHER):
                    entry = builder.add(e, ir.Constant(e.type, n))
                    source = builder.add(args[2], entry_of(context, builder, sig, args, 3, entry))
                    chains = [ir.Constant(row, None)] * min(2, registers)  # sums that do not wait for each other
                    for k, value in enumerate(given):
                        values = builder.load(pointer(1, source, k), align=4)
                        product = builder.fmul(value, values, flags=("contract",))
                        chains[k % 2] = builder.fadd(chains[k % 2], product, flags=("contract",))
                    sums.append(chains[0] if len(chains) == 1 else builder.fadd(*chains))
                found = summed(builder, sums, row.count)
                kept = builder.gep(data_of(context, builder, sig, args, 0), [e])
                kept = builder.bitcast(kept, found.type.as_pointer())
                builder.store(builder.fadd(builder.load(kept, align=4), found), kept, align=4)
            return context.get_dummy_value()

        return signature, generate

    return dot


def summed(builder: Any, sums: list[Any], lanes: int) -> Any:
    """Sum up each of ``TOGETHER`` vectors by halves; return all sums as one vector."""
    while lanes > 1:
        pairs = len(sums) > 1
        others = sums[1::2] if pairs else sums
        count, half = sums[0].type.count, lanes // 2
        groups = range(0, 2 * count if pairs else count, lanes)
        low = [group + k for group in groups for k in range(half)]
        sums = [
            builder.fadd(_shuffled(builder, a, b, low), _shuffled(builder, a, b, [k + half for k in low]))
            for a, b in zip(sums[::2], others, strict=True)
        ]
        lanes = half
    return sums[0]


def _shuffled(builder: Any, one: Any, other: Any, index: Any) -> Any:
    from llvmlite import ir

    places = list(index)
    return builder.shuffle_vector(one, other, ir.Constant(ir.VectorType(ir.IntType(32), len(places)), places))
