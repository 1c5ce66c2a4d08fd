"""One step of a rollout's neuron for one row of neurons, as source: compiled into each loop that runs neurons.

:mod:`delaykit.functional.recurrence.neuron.base` has the equations. Many short loops: each touches few arrays, so that
it is vectorised. A loop of one's own takes them up by ``@compiled(parts=(integrate_row, commit_row))``.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations


def integrate_row(given, recurs, spiked, factor, masked, p, bias, synaptic, zero_old, delayed, wipe, reset, left, old,
                  current, new, over):  # fmt: skip
    """Write i_t into ``current``, u_t into ``new`` and u_t - threshold into ``over``.

    Args:
        given: the drive ``(post,)``, as all rows.
        recurs: whether there is a recurrent connection.
        spiked: its current, without bias.
        factor: what bias and recurrent current are multiplied by.
        masked: whether they are.
        p: the neuron's numbers, see :func:`delaykit.functional.recurrence.neuron.pack`.
        bias: part of the recurrent current.
        synaptic: whether the current decays, and does not end with its step.
        zero_old: see :class:`delaykit.functional.recurrence.neuron.Switches`.
        delayed: whether a spike of the step before is subtracted.
        wipe: as ``zero_old``.
        reset: r_t.
        left: goes from alpha i_{t-1} to alpha i_t.
        old: v_{t-1}, where ``zero_old`` as it is after that reset; it may be ``new``.
        current: is written.
        new: is written.
        over: is written.
    """
    decay, alpha, gain, offset, threshold, subtract, value = p[0], p[1], p[2], p[3], p[4], p[5], p[7]
    neurons = len(old)
    if recurs and masked:
        for n in range(neurons):
            current[n] = given[n] + factor[n] * (spiked[n] + bias[n])
    elif recurs:
        for n in range(neurons):
            current[n] = given[n] + (spiked[n] + bias[n])
    else:
        for n in range(neurons):
            current[n] = given[n]
    if synaptic:
        for n in range(neurons):
            current[n] += left[n]
        for n in range(neurons):
            left[n] = alpha[n] * current[n]
    if zero_old:
        for n in range(neurons):
            old[n] -= reset[n] * (old[n] - value[n])
    for n in range(neurons):
        new[n] = decay[n] * old[n] + (gain[n] * current[n] + offset[n])
    if delayed:
        for n in range(neurons):
            new[n] -= reset[n] * subtract[n]
    if wipe:
        for n in range(neurons):
            new[n] -= reset[n] * (new[n] - value[n])
    for n in range(neurons):
        over[n] = new[n] - threshold[n]


def commit_row(given, above, p, immediate, zero_now, delayed, reset, new, old, kept, fired):
    """Write s_t into ``fired`` and v_t into ``old`` and ``kept``, and remember what resets the next step.

    Args:
        given: the spikes ``(post,)``, as all rows; u_t - threshold if ``above``.
        above: whether it fires where that is above 0.
        p: the neuron's numbers, see :func:`delaykit.functional.recurrence.neuron.pack`.
        immediate: whether s_t resets its own step.
        zero_now: see :class:`delaykit.functional.recurrence.neuron.Switches`.
        delayed: whether s_t is r_{t+1}.
        reset: goes from r_t to r_{t+1}.
        new: u_t.
        old: is written.
        kept: is written if ``immediate``; else it is ``new``.
        fired: is written.
    """
    subtract, value = p[6], p[7]
    neurons = len(old)
    if above:
        for n in range(neurons):
            fired[n] = given[n] > 0
    else:
        for n in range(neurons):
            fired[n] = given[n]
    for n in range(neurons):
        old[n] = new[n]
    if immediate:
        for n in range(neurons):
            old[n] -= (fired[n] - reset[n]) * (subtract[n] + zero_now * (new[n] - value[n]))
        for n in range(neurons):
            kept[n] = old[n]
    if delayed:
        for n in range(neurons):
            reset[n] = fired[n]
