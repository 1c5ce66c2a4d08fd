"""Compiled sums over delayed rows, step by step, several steps ahead: what comes late enough is known by then.

A recurrent layer knows its inputs up to now. A synapse that is ``k`` steps late reads nothing else at this step and the
``k`` that follow, so that all but the quickest synapses are summed up for ``AHEAD`` steps at once: their weights are
loaded that much less often, and the sums of one output fill the vector registers. The quickest add to it step by step.

The rows of a history are ``(neuron, step, row of the batch)``, of as many rows of a batch as one or two vectors have
numbers; what lies before the first step is silence.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

from typing import Any

from delaykit.functional.compiled import compiled
from delaykit.functional.llvm.recurrence.pairs import make_add_pairs, make_turn

AHEAD = 4  # steps
OUTPUTS = 512  # whose sums stay in the second cache
add_late_two: Any = None  # by these names, the kernel finds what is made when it is compiled
add_late_one: Any = None
add_soon_two: Any = None
add_soon_one: Any = None
turn: Any = None


@compiled()
def list_ahead(cell, low, high, steps, few, moves, late, soon):
    """List the synapses of each output: those late enough to be read some steps ahead, and those that are not.

    Args:
        cell: ``(post, pre)``, flat, as are low and high: the step before each delay.
        low: weight of that step.
        high: weight of the next one.
        steps: of the sequence; what comes later has no part in it.
        few: inputs that are listed together.
        moves: numbers of outputs and inputs, from an output and an input to the next in ``cell``; stride of a row of
            the history, and its width.
        late: first of each output's entries ``(block of inputs, output)`` and one more; place relative to now; weights.
        soon: the same of the others, all inputs in one block.
    """
    outputs, inputs, by_output, by_input, stride, width = moves
    first, place, early, after = late
    begin, near, here, there = soon
    used, count = 0, 0
    for block in range(len(first)):
        for r in range(outputs):
            first[block, r] = used
            for q in range(block * few, min((block + 1) * few, inputs)):
                at = r * by_output + q * by_input
                step = cell[at]
                place[used], early[used], after[used] = q * stride - step * width, low[at], high[at]
                if step == steps - 1:  # its second step is beyond the end, where no history is kept
                    after[used] = 0
                used += (step >= AHEAD - 1) & (step < steps)  # a branch would be taken at random
        first[block, outputs] = used
    for r in range(outputs):
        begin[0, r] = count
        for q in range(inputs):
            at = r * by_output + q * by_input
            step = cell[at]
            near[count], here[count], there[count] = q * stride - step * width, low[at], high[at]
            count += (step < AHEAD - 1) & (step < steps)
    begin[0, outputs] = count
    return used, count


@compiled(
    intrinsics=lambda numba: {
        "add_late_two": make_add_pairs(numba, AHEAD, 2), "add_late_one": make_add_pairs(numba, AHEAD, 1),
        "add_soon_two": make_add_pairs(numba, 1, 2), "add_soon_one": make_add_pairs(numba, 1, 1),
        "turn": make_turn(numba),
    }
)  # fmt: skip
def read_ahead(x, history, at, stride, width, lanes, phase, late, soon, sums, out):
    """Take in the step's input x ``(batch, pre)``, and write what its synapses give now to out ``(batch, post)``.

    Args:
        x: input.
        history: flat rows of the inputs.
        at: where this step lies in each of them.
        stride: of a row.
        width: numbers of a step, ``lanes`` or twice as many.
        lanes: numbers in a vector.
        phase: number of this step among those that are summed up at once.
        late: see :func:`list_ahead`, as is soon.
        soon: see late.
        sums: flat scratch, ``(post, AHEAD, width)``.
        out: is written.
    """
    (batch, inputs), outputs = x.shape, out.shape[1]
    given, result = x.reshape(-1), out.reshape(-1)
    rows = batch // lanes * lanes
    for b in range(0, rows, lanes):
        for q in range(0, inputs - lanes + 1, lanes):
            turn(history, q * stride + at + b, stride, given, b * inputs + q, inputs)
    for b in range(batch):
        for q in range(inputs // lanes * lanes if b < rows else 0, inputs):
            history[q * stride + at + b] = given[b * inputs + q]
    first, place, early, after = late
    begin, near, here, there = soon
    span, two = AHEAD * width, width > lanes
    for opening in range(0, outputs, OUTPUTS):
        closing = min(opening + OUTPUTS, outputs)
        if phase == 0:
            for n in range(opening * span, closing * span):
                sums[n] = 0
            for block in range(len(first)):
                for r in range(opening, closing):
                    to, lowest, end = r * span, first[block, r], first[block, r + 1]
                    if two:
                        add_late_two(sums, to, history, at, place, early, after, lowest, end)
                    else:
                        add_late_one(sums, to, history, at, place, early, after, lowest, end)
        for r in range(opening, closing):
            to = r * span + phase * width
            if two:
                add_soon_two(sums, to, history, at, near, here, there, begin[0, r], begin[0, r + 1])
            else:
                add_soon_one(sums, to, history, at, near, here, there, begin[0, r], begin[0, r + 1])
    start = phase * width
    for b in range(0, rows, lanes):
        for r in range(0, outputs - lanes + 1, lanes):
            turn(result, b * outputs + r, outputs, sums, r * span + start + b, span)
    for b in range(batch):
        for r in range(outputs // lanes * lanes if b < rows else 0, outputs):
            result[b * outputs + r] = sums[r * span + start + b]
