"""Arrays by whole vector registers, for intrinsics of compiled kernels: what each of them needs."""

from __future__ import annotations

from typing import Any

LANES = 8  # numbers in a vector where a kernel does not ask for whole registers


def vectors_of(context: Any, builder: Any, sig: Any, args: Any, share: int = 1) -> tuple[Any, Any]:
    """Return the type of a vector of 64 bytes of what the first argument holds, and ``pointer(argument, start, part)``.

    That gives the place of so many numbers of another argument's flat array: ``start``, and ``part`` vectors on. With
    a ``share``, vectors are so many times shorter.
    """
    from llvmlite import ir  # type: ignore[import-untyped]

    kind = sig.args[0].dtype
    count = 512 // kind.bitwidth // share

    def pointer(argument: int, start: Any, part: int) -> Any:
        at = builder.add(start, ir.Constant(start.type, part * count))
        place = builder.gep(data_of(context, builder, sig, args, argument), [at])
        row = ir.VectorType(context.get_value_type(sig.args[argument].dtype), count)
        return builder.bitcast(place, row.as_pointer())

    return ir.VectorType(context.get_value_type(kind), count), pointer


def data_of(context: Any, builder: Any, sig: Any, args: Any, argument: int) -> Any:
    """Return where the numbers of an argument's array begin."""
    from numba.np.arrayobj import make_array

    return make_array(sig.args[argument])(context, builder, args[argument]).data


def entry_of(context: Any, builder: Any, sig: Any, args: Any, argument: int, entry: Any) -> Any:
    """Load one entry of an argument's array; small integers are widened."""
    from llvmlite import ir

    found = builder.load(builder.gep(data_of(context, builder, sig, args, argument), [entry]))
    return builder.sext(found, entry.type) if isinstance(found.type, ir.IntType) and found.type != entry.type else found


def repeated(builder: Any, scale: Any, row: Any) -> Any:
    """Fill a vector with one number."""
    from llvmlite import ir

    first = builder.insert_element(ir.Constant(row, ir.Undefined), scale, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(
        first, ir.Constant(row, ir.Undefined), ir.Constant(ir.VectorType(ir.IntType(32), row.count), None)
    )
