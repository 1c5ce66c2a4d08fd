"""The compiled reading of lines: one step of what neurons' own taps read from rows of the batch, turned on the way."""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

from typing import Any

from delaykit.functional.compiled import compiled
from delaykit.functional.llvm.recurrence.pairs import make_turn
from delaykit.functional.llvm.rows.sums import make_add

add_two: Any = None  # by these names, the kernel finds what is made when it is compiled
add_one: Any = None
turn: Any = None


@compiled(
    intrinsics=lambda numba: {
        "add_two": make_add(numba, 2), "add_one": make_add(numba, 1), "turn": make_turn(numba),
    }
)  # fmt: skip
def read_line(flat, at, first, place, weight, lanes, rows, out):
    """Write ``sum_e weight[e] flat[at + place[e] + b]`` over a neuron's entries to ``out[b, n]``.

    Args:
        flat: history ``(time, neuron, batch)``, all arrays of one type.
        at: where this step begins.
        first: entry of each neuron, and one more.
        place: of an entry, relative to this step.
        weight: of an entry.
        lanes: numbers in a vector.
        rows: scratch ``(neuron, batch)``.
        out: ``(batch, neuron)``.
    """
    neurons, batch = rows.shape
    sums, result = rows.reshape(-1), out.reshape(-1)
    for n in range(len(sums)):
        sums[n] = 0
    for n in range(neurons):
        b, low, high = 0, first[n], first[n + 1]
        while b + 2 * lanes <= batch:
            add_two(sums, n * batch + b, flat, at + b, place, weight, low, high)
            b += 2 * lanes
        while b + lanes <= batch:
            add_one(sums, n * batch + b, flat, at + b, place, weight, low, high)
            b += lanes
        for rest in range(b, batch):
            for e in range(low, high):
                sums[n * batch + rest] += weight[e] * flat[at + place[e] + rest]
    whole = batch // lanes * lanes
    for b in range(0, whole, lanes):
        for n in range(0, neurons - lanes + 1, lanes):
            turn(result, b * neurons + n, neurons, sums, n * batch + b, batch)
    for b in range(batch):
        for n in range(neurons // lanes * lanes if b < whole else 0, neurons):
            result[b * neurons + n] = sums[n * batch + b]
