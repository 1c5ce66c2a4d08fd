"""Sums of polynomials whose coefficients are rows, in vector registers: the inner loop of gaussians by cells."""

from __future__ import annotations

from typing import Any

from delaykit.functional.compiled import compiled
from delaykit.functional.llvm.registers import LANES, repeated

WIDTHS = {"wide": 32, "narrow": 8}
wide: Any = None  # by these two names, the kernel finds what is made when it is compiled
narrow: Any = None


@compiled(intrinsics=lambda numba: {name: make_add_polynomials(numba, size) for name, size in WIDTHS.items()})
def read_polynomials(flat, at, place, part, weight, terms, out):  # type: ignore[no-untyped-def]
    """Sum polynomials over blocks of inputs.

    ``out[a] += sum_{g, e} weight[g, a, e] sum_m part[g, a, e]^m flat[at + place[g, a, e] + m chunk ...]``, m < terms;
    out ``(to, chunk)``, the tables ``(block, to, entry)``.
    """
    blocks, outputs, entries = place.shape
    chunk = out.shape[1]
    result, places, parts, weights = out.reshape(-1), place.reshape(-1), part.reshape(-1), weight.reshape(-1)
    for g in range(blocks):
        for a in range(outputs):
            first = (g * outputs + a) * entries
            last, b = first + entries, 0
            while b + 32 <= chunk:
                to, source = a * chunk + b, at + b
                wide(result, to, flat, source, places, parts, weights, first, last, chunk, terms)
                b += 32
            while b + 8 <= chunk:
                to, source = a * chunk + b, at + b
                narrow(result, to, flat, source, places, parts, weights, first, last, chunk, terms)
                b += 8
            for rest in range(b, chunk):
                total = result[a * chunk + rest]
                for e in range(first, last):
                    source, y = at + places[e] + rest, parts[e]
                    value = flat[source + (terms - 1) * chunk]
                    for m in range(terms - 2, -1, -1):
                        value = value * y + flat[source + m * chunk]
                    total += weights[e] * value
                result[a * chunk + rest] = total


def make_add_polynomials(numba: Any, width: int) -> Any:
    """Make ``add(out, out_at, flat, at, place, part, weight, first, last, step, terms)`` for ``width`` numbers.

    ``out[out_at + b] += sum_e weight[e] sum_m part[e]^m flat[at + place[e] + m step + b]``, e = first .. last - 1,
    m < terms, b < width, a multiple of 8; all arrays are flat, contiguous and but for places of one type, nothing is
    bounds-checked.
    """
    from llvmlite import ir  # type: ignore[import-untyped]
    from numba.core import cgutils, types
    from numba.extending import intrinsic
    from numba.np.arrayobj import make_array

    @intrinsic
    def add(typingctx, out, out_at, flat, at, place, part, weight, first, last, step, terms):  # type: ignore[no-untyped-def]
        index = types.intp
        signature = types.void(out, index, flat, index, place, part, weight, index, index, index, index)

        def generate(context, builder, sig, args):  # type: ignore[no-untyped-def]
            row = ir.VectorType(context.get_value_type(sig.args[2].dtype), LANES)
            out_data, flat_data, place_data, part_data, weight_data = (
                make_array(sig.args[k])(context, builder, args[k]).data for k in (0, 2, 4, 5, 6)
            )
            align, count = sig.args[2].dtype.bitwidth // 8, width // LANES
            one = ir.Constant(args[9].type, 1)

            def load(data, start, k):  # type: ignore[no-untyped-def]
                at = builder.gep(data, [builder.add(start, ir.Constant(start.type, k * LANES))])
                return builder.load(builder.bitcast(at, row.as_pointer()), align=align)

            sums = [cgutils.alloca_once_value(builder, load(out_data, args[1], k)) for k in range(count)]
            values = [cgutils.alloca_once(builder, row) for _ in range(count)]
            source = cgutils.alloca_once(builder, args[3].type)
            with cgutils.for_range(builder, builder.sub(args[8], args[7])) as loop:
                e = builder.add(args[7], loop.index)
                found = builder.load(builder.gep(place_data, [e]))
                found = found if found.type == args[3].type else builder.sext(found, args[3].type)
                top = builder.mul(builder.sub(args[10], one), args[9])
                builder.store(builder.add(builder.add(args[3], found), top), source)
                y = repeated(builder, builder.load(builder.gep(part_data, [e])), row)
                scale = repeated(builder, builder.load(builder.gep(weight_data, [e])), row)
                for k, kept in enumerate(values):
                    builder.store(load(flat_data, builder.load(source), k), kept)
                with cgutils.for_range(builder, builder.sub(args[10], one)):
                    builder.store(builder.sub(builder.load(source), args[9]), source)
                    for k, kept in enumerate(values):
                        product = builder.fmul(builder.load(kept), y, flags=("contract",))
                        below = load(flat_data, builder.load(source), k)
                        builder.store(builder.fadd(product, below, flags=("contract",)), kept)
                for value, kept in zip(values, sums, strict=True):
                    product = builder.fmul(builder.load(value), scale, flags=("contract",))
                    builder.store(builder.fadd(builder.load(kept), product, flags=("contract",)), kept)
            for k, kept in enumerate(sums):
                at = builder.gep(out_data, [builder.add(args[1], ir.Constant(args[1].type, k * LANES))])
                builder.store(builder.load(kept), builder.bitcast(at, row.as_pointer()), align=align)
            return context.get_dummy_value()

        return signature, generate

    return add
