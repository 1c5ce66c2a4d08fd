"""Compiled sums over delayed rows, step by step, several steps ahead: what comes late enough is known by then.

A recurrent layer knows its inputs up to now. A synapse that is ``k`` steps late reads nothing else at this step and the
``k`` that follow, so that all but the quickest synapses are summed up for ``AHEAD`` steps at once: their weights are
loaded that much less often, and the sums of one output fill the vector registers. The quickest add to it step by step.

The rows of a history are ``(neuron, step, row of the batch)``, of as many rows of a batch as a vector has numbers;
what lies before the first step is silence. Whole delays read one step, all others two.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

from typing import Any

from delaykit.functional.compiled import compiled
from delaykit.functional.llvm.recurrence.pairs import make_add_pairs, make_turn
from delaykit.functional.llvm.rows.sums import make_add

AHEAD = 4  # steps
add_late_pairs: Any = None  # by these names, the kernel finds what is made when it is compiled
add_late: Any = None
add_soon_pairs: Any = None
add_soon: Any = None
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
        "add_late_pairs": make_add_pairs(numba, AHEAD), "add_late": make_add(numba, AHEAD),
        "add_soon_pairs": make_add_pairs(numba, 1), "add_soon": make_add(numba, 1), "turn": make_turn(numba),
    }
)  # fmt: skip
def read_ahead(x, histories, at, stride, lanes, phase, whole, late, soon, scratch, out):
    """Take in the step's input x ``(batch, pre)``, and write what its synapses give now to out ``(batch, post)``.

    Args:
        x: input.
        histories: flat rows of the inputs, ``(share of the batch, numbers)``.
        at: where this step lies in each of them.
        stride: of a row.
        lanes: numbers in a vector, and of a step.
        phase: number of this step among those that are summed up at once.
        whole: whether no synapse reads a second step.
        late: see :func:`list_ahead`, as is soon.
        soon: see late.
        scratch: sums, ``(share of the batch, post * AHEAD * lanes)``.
        out: is written.
    """
    (batch, inputs), outputs, span = x.shape, out.shape[1], AHEAD * lanes
    given, result, start = x.reshape(-1), out.reshape(-1), phase * lanes
    first, place, early, after = late
    begin, near, here, there = soon
    for share in range(len(histories)):
        history, sums, opening = histories[share], scratch[share], share * lanes
        closing = min(opening + lanes, batch)
        turned = inputs // lanes * lanes if closing - opening == lanes else 0
        for q in range(0, turned, lanes):
            turn(history, q * stride + at, stride, given, opening * inputs + q, inputs)
        for b in range(opening, closing):
            for q in range(turned, inputs):
                history[q * stride + at + b - opening] = given[b * inputs + q]
        if phase == 0:
            for n in range(outputs * span):
                sums[n] = 0
            for block in range(len(first)):
                for r in range(outputs):
                    low, high = first[block, r], first[block, r + 1]
                    if whole:
                        add_late(sums, r * span, history, at, place, early, low, high)
                    else:
                        add_late_pairs(sums, r * span, history, at, place, early, after, low, high)
        for r in range(outputs):
            to, low, high = r * span + start, begin[0, r], begin[0, r + 1]
            if whole:
                add_soon(sums, to, history, at, near, here, low, high)
            else:
                add_soon_pairs(sums, to, history, at, near, here, there, low, high)
        turned = outputs // lanes * lanes if closing - opening == lanes else 0
        for r in range(0, turned, lanes):
            turn(result, opening * outputs + r, outputs, sums, r * span + start, span)
        for b in range(opening, closing):
            for r in range(turned, outputs):
                result[b * outputs + r] = sums[r * span + start + b - opening]
