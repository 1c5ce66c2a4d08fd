"""How sequences lie in memory as rows, and where the taps of synapses read them: compiled."""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import numpy as np

from delaykit.functional.compiled import compiled

TOGETHER = 4  # entries that are read together: where it matters, an output has a multiple of so many
TILE = 16  # neurons that change places with time at once


@compiled()
def lay_rows(x, first, width, pad, stride, rows):
    """Write rows ``first .. first + width - 1`` of a batch to ``rows``, ``pad + t * width + b`` in a neuron's stride.

    What lies before and behind a row is silence.
    """
    time, batch, neurons = x.shape
    for q in range(neurons):
        for n in range(pad):
            rows[q * stride + n] = 0
        for n in range(pad + time * width, stride):
            rows[q * stride + n] = 0
    turned = neurons // TILE * TILE if width == TILE else 0  # squares, turned as vectors
    given = x.reshape(-1)
    for start in range(0, turned, TILE):
        for t in range(time):
            source, to = (t * batch + first) * neurons + start, start * stride + pad + t * TILE
            for q in range(TILE):
                for b in range(TILE):
                    rows[np.uintp(to + q * stride + b)] = given[np.uintp(source + b * neurons + q)]
    for start in range(turned, neurons, TILE):
        end = min(start + TILE, neurons)
        for t in range(time):
            for b in range(width):
                row, at = x[t, first + b], pad + t * width + b
                for q in range(start, end):
                    rows[q * stride + at] = row[q]


@compiled()
def count_used(x):
    """Count the numbers of flat ``x`` that are not 0."""
    used, rows = 0, len(x) // 1024
    for row in range(rows):
        some = np.int32(0)
        for n in range(row * 1024, (row + 1) * 1024):
            some += np.int32(x[n] != 0)
        used += int(some)
    for n in range(rows * 1024, len(x)):
        used += x[n] != 0
    return used


@compiled()
def pick(total, slot, out):
    """Write ``total[slot]`` to ``out``, 0 where the slot is -1; all flat."""
    for n in range(len(slot)):
        out[n] = total[slot[n]] if slot[n] >= 0 else 0


@compiled()
def list_taps(index, value, steps, shape, moves, first, place, weight, slot):
    """List the taps of each output for a few inputs at a time: where they read, and what they weigh.

    Args:
        index: flat steps of the taps.
        value: flat weights, left out where 0; none: every different step of a synapse is listed once.
        steps: of the sequence; a tap that looks farther has no part in it.
        shape: taps, outputs, inputs, inputs at a time.
        moves: from a tap, an output, an input to the next in ``index``; offset of a step, stride of a row.
        first: of each output's entries, ``(block of inputs, output)`` and one more; multiples of ``TOGETHER`` if there
            are no values.
        place: of each entry, relative to what is computed.
        weight: of each entry.
        slot: entry of each tap, -1 for none, if there are no values; flat, like ``index``.
    """
    taps, outputs, inputs, few = shape
    by_tap, by_output, by_input, late, stride = moves
    used, weighs = 0, len(value) > 0
    for block in range(len(first)):
        for r in range(outputs):
            first[block, r] = used
            for q in range(block * few, min((block + 1) * few, inputs)):
                for m in range(taps):
                    at = m * by_tap + r * by_output + q * by_input
                    step = index[at]
                    if weighs:
                        place[used], weight[used] = q * stride + late * step, value[at]
                        used += (value[at] != 0) & (step < steps)  # a branch would be taken at random
                        continue
                    found = -1
                    for earlier in range(m):  # a repeated step has the same product
                        other = earlier * by_tap + r * by_output + q * by_input
                        found = slot[other] if index[other] == step else found
                    new = (found < 0) & (step < steps)
                    place[used], slot[at] = q * stride + late * step, used if new else found
                    used += new
            while not weighs and used % TOGETHER != 0:
                place[used] = block * few * stride
                used += 1
        first[block, outputs] = used
