"""A rollout's neuron for CUDA, by Triton: one program keeps the state of a tile of the batch for all steps.

:mod:`delaykit.functional.recurrence.neuron.base` has the equations. Spikes and gradients of currents are written to
memory, where the delays of later steps find them; the rest stays on the chip. This module imports Triton.
"""

# mypy: disallow-untyped-defs=False
from __future__ import annotations

import triton
import triton.language as tl

from delaykit.functional.recurrence.connection.triton import NONE, connected


@triton.jit
def constant(p, kind: tl.constexpr, neurons, at, inside_at):
    """Return one row of the neurons' constants, as :func:`~.base.pack` stacks them, ``(1, neuron)``."""
    return tl.load(p + kind * neurons + at, mask=inside_at, other=0.0)[None, :]


@triton.jit
def constants(p, neurons, at, inside_at):
    """Return those that both directions use: decay, alpha, gain, what an old and a new spike subtract, and the rest."""
    decay, alpha = constant(p, 0, neurons, at, inside_at), constant(p, 1, neurons, at, inside_at)
    gain, subtract_old = constant(p, 2, neurons, at, inside_at), constant(p, 5, neurons, at, inside_at)
    subtract_now, rest = constant(p, 6, neurons, at, inside_at), constant(p, 7, neurons, at, inside_at)
    return decay, alpha, gain, subtract_old, subtract_now, rest


@triton.jit
def tile(batch, neurons, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    """Return a program's rows and neurons, which are there, where they lie in a step, and the numbers of a step."""
    rows, at = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.arange(0, BLOCK)
    inside_rows, inside_at = rows < batch, at < neurons
    here, inside = rows[:, None] * neurons + at[None, :], inside_rows[:, None] & inside_at[None, :]
    return rows, at, inside_rows, inside_at, here, inside, tl.full([], 1, tl.int64) * batch * neurons


@triton.jit
def run_forward(drive, history, spikes, kept, matrix, index, value, p, bias, mask, synapse, membrane, reset, u,
                membranes, currents, steps, batch, neurons, KIND: tl.constexpr, TAPS: tl.constexpr, FIRES: tl.constexpr,
                MASKED: tl.constexpr, KEEP: tl.constexpr, NEXT: tl.constexpr, BOTH: tl.constexpr,
                IMMEDIATE: tl.constexpr, ZERO_OLD: tl.constexpr, WIPE: tl.constexpr, ZERO_NOW: tl.constexpr,
                ROWS: tl.constexpr, BLOCK: tl.constexpr, DEEP: tl.constexpr, DOT: tl.constexpr):  # fmt: skip
    """Run all steps; ``history[t]`` is the connection's input at t, so spikes of t are also ``history[t + 1]``."""
    rows, at, inside_rows, inside_at, here, inside, size = tile(batch, neurons, ROWS, BLOCK)
    decay, alpha, gain, subtract_old, subtract_now, rest = constants(p, neurons, at, inside_at)
    offset, threshold = constant(p, 3, neurons, at, inside_at), constant(p, 4, neurons, at, inside_at)
    biases = tl.load(bias + at, mask=inside_at, other=0.0)[None, :]
    lingering = tl.load(synapse + here, mask=inside, other=0.0)
    v = tl.load(membrane + here, mask=inside, other=0.0)
    r = tl.load(reset + here, mask=inside, other=0.0)
    for step in range(steps):
        t = tl.full([], 1, tl.int64) * step
        now = tl.load(drive + t * size + here, mask=inside, other=0.0)
        if KIND != NONE:
            extra = biases + connected(
                history, kept, matrix, index, value, t, steps, rows, inside_rows, at, inside_at, neurons, size, KIND,
                1, TAPS, ROWS, BLOCK, DEEP, DOT,
            )  # fmt: skip
            if MASKED:
                extra *= tl.load(mask + here, mask=inside, other=0.0)
            now += extra
        now += lingering
        lingering = alpha * now
        if KEEP:
            tl.store(currents + t * size + here, now, mask=inside)
        elif step == steps - 1:
            tl.store(currents + here, now, mask=inside)
        old = v
        if ZERO_OLD:
            old -= r * (old - rest)
        new = decay * old + gain * now + offset - r * subtract_old
        if WIPE:
            new -= r * (new - rest)
        tl.store(u + t * size + here, new, mask=inside)
        fired = tl.zeros([ROWS, BLOCK], dtype=drive.dtype.element_ty)
        if FIRES:
            fired = (new - threshold > 0).to(drive.dtype.element_ty)
        v = new
        if IMMEDIATE:
            v -= (fired - r) * (subtract_now + ZERO_NOW * (new - rest))
            tl.store(membranes + t * size + here, v, mask=inside)
        tl.store(spikes + t * size + here, fired, mask=inside)
        if NEXT:
            r = fired
        if BOTH:
            r = (v - threshold > 0).to(drive.dtype.element_ty)
        if KIND != NONE:
            tl.store(history + (t + 1) * size + here, fired, mask=inside)
            tl.debug_barrier()  # other threads read these spikes


@triton.jit
def run_backward(grad_spikes, grad_membrane, slope, spikes, resets, u, membranes, start, p, mask, last, gradients,
                 kept, matrix, index, value, grad_v, grad_i, grad_r, grad_x, grad_drive, grad_sums, grad_after_reset,
                 grad_through_spike, steps, batch, neurons,
                 KIND: tl.constexpr, TAPS: tl.constexpr, MASKED: tl.constexpr,
                 ONE_MEMBRANE: tl.constexpr, ONE_RESET: tl.constexpr, SUM: tl.constexpr, RECORD: tl.constexpr,
                 ZERO_OLD: tl.constexpr, WIPE: tl.constexpr, ZERO_NOW: tl.constexpr, THROUGH_NOW: tl.constexpr,
                 THROUGH_OLD: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr, DEEP: tl.constexpr,
                 DOT: tl.constexpr):  # fmt: skip
    """Run the adjoint of all steps, the last one first; ``gradients[t]`` gets that of the recurrent current."""
    rows, at, inside_rows, inside_at, here, inside, size = tile(batch, neurons, ROWS, BLOCK)
    decay, alpha, gain, subtract_old, subtract_now, rest = constants(p, neurons, at, inside_at)
    v_grad = tl.load(grad_v + here, mask=inside, other=0.0)
    i_grad = tl.load(grad_i + here, mask=inside, other=0.0)
    r_grad = tl.load(grad_r + here, mask=inside, other=0.0)
    x_grad = tl.zeros([ROWS, BLOCK], dtype=spikes.dtype.element_ty)
    for back in range(steps):
        t = tl.full([], 1, tl.int64) * (steps - 1 - back)
        place = t * size + here
        s_grad = tl.load(grad_spikes + place, mask=inside, other=0.0) + x_grad
        after = tl.load(grad_membrane + (here if ONE_MEMBRANE else place), mask=inside, other=0.0) + v_grad
        fired, now = tl.load(spikes + place, mask=inside, other=0.0), tl.load(u + place, mask=inside, other=0.0)
        r = tl.load(resets + (here if ONE_RESET else place), mask=inside, other=0.0)
        if THROUGH_OLD:
            s_grad += r_grad
        if THROUGH_NOW:
            s_grad -= (subtract_now + ZERO_NOW * (now - rest)) * after
        s_grad *= tl.load(slope + place, mask=inside, other=0.0)
        u_grad = after * (1 - ZERO_NOW * (fired - r)) + s_grad
        sum_grad = u_grad * (1 - WIPE * r)
        if THROUGH_OLD:
            if back == steps - 1:
                old = tl.load(start + here, mask=inside, other=0.0)
            else:
                old = tl.load(membranes + place - size, mask=inside, other=0.0)
            r_grad = -(subtract_old + ZERO_OLD * decay * (old - rest)) * u_grad
        v_grad = decay * sum_grad * (1 - ZERO_OLD * r)
        i_grad = gain * sum_grad + alpha * i_grad
        if back == 0:
            i_grad += tl.load(last + here, mask=inside, other=0.0)
        tl.store(grad_drive + place, i_grad, mask=inside)
        if SUM:
            tl.store(grad_sums + place, sum_grad, mask=inside)
        if RECORD > 1:
            tl.store(grad_after_reset + place, after, mask=inside)
            tl.store(grad_through_spike + place, s_grad, mask=inside)
        if KIND != NONE:
            current = i_grad
            if MASKED:
                current *= tl.load(mask + here, mask=inside, other=0.0)
            tl.store(gradients + place, current, mask=inside)
            tl.debug_barrier()  # other threads read these gradients
            x_grad = connected(
                gradients, kept, matrix, index, value, t, steps, rows, inside_rows, at, inside_at, neurons, size,
                KIND, -1, TAPS, ROWS, BLOCK, DEEP, DOT,
            )  # fmt: skip
    tl.store(grad_v + here, v_grad, mask=inside)
    tl.store(grad_i + here, i_grad, mask=inside)
    tl.store(grad_r + here, r_grad, mask=inside)
    tl.store(grad_x + here, x_grad, mask=inside)
