"""Sum of scaled rows with the running sum in vector registers: the inner loop of per-synapse delays on the CPU.

Written as LLVM vector operations, because the loop that Numba compiles from Python stores the sum to memory after every
tap, which costs several times the arithmetic.
"""

from __future__ import annotations

import functools
from typing import Any

LANES = 8


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
                scales = builder.insert_element(ir.Constant(total, ir.Undefined), scale, ir.Constant(ir.IntType(32), 0))
                zeros = ir.Constant(ir.VectorType(ir.IntType(32), LANES), None)
                scales = builder.shuffle_vector(scales, ir.Constant(total, ir.Undefined), zeros)
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
