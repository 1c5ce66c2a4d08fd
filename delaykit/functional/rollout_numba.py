"""Numba kernels of the rollout: one time step of the neuron, one read of the taps, one sweep for their gradients.

Histories are ``(time, neuron, batch)``: the batch of one neuron at one step is contiguous, so every tap is one vector
operation, whatever the delay. The sweeps unroll them to ``(neuron, time batch)`` first. What users see is
``(time, batch, neuron)``; it is turned around on the way, ``batch x neuron`` numbers a step.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

from delaykit.functional.rollout_vector import make_gather


class NumbaKernels(NamedTuple):
    """The compiled functions."""

    integrate: Any
    commit: Any
    adjoint: Any
    turn: Any
    read: Any
    running_sums: Any
    unroll: Any
    correlate_lines: Any
    correlate_synapses: Any


@functools.cache
def numba_kernels() -> NumbaKernels | None:
    """Compile (on first use) and return the kernels; None where Numba is not installed."""
    try:
        import numba
        import numpy as np
    except ImportError:
        return None
    jit = numba.njit(nogil=True)
    fast = numba.njit(nogil=True, fastmath={"reassoc", "contract"})  # vectorised sums; NaN and inf stay what they are

    # Many short loops over one row of neurons: each touches few arrays, so that it is vectorised.
    @jit
    def integrate(t, drive, recurrent, recurs, mask, masked, p, bias, synaptic, zero_old, delayed, wipe, r, syn, v, u,
                  shifted, current, keep):  # type: ignore[no-untyped-def]  # fmt: skip
        """Write i_t, u_t and u_t - threshold; ``syn`` goes from alpha i_{t-1} to alpha i_t."""
        batch, neurons = v.shape
        decay, alpha, gain, offset, threshold, subtract, value = p[0], p[1], p[2], p[3], p[4], p[5], p[7]
        for b in range(batch):
            flow, into, new = current[t if keep else 0, b], drive[t, b], u[t, b]
            old, early, extra, factor, carry, over = v[b], r[b], recurrent[b], mask[b], syn[b], shifted[b]
            for n in range(neurons):
                flow[n] = into[n]
            if recurs and masked:
                for n in range(neurons):
                    flow[n] += factor[n] * (extra[n] + bias[n])
            elif recurs:
                for n in range(neurons):
                    flow[n] += extra[n] + bias[n]
            if synaptic:
                for n in range(neurons):
                    flow[n] += carry[n]
                for n in range(neurons):
                    carry[n] = alpha[n] * flow[n]
            if zero_old:
                for n in range(neurons):
                    old[n] -= early[n] * (old[n] - value[n])
            for n in range(neurons):
                new[n] = decay[n] * old[n] + (gain[n] * flow[n] + offset[n])
            if delayed:
                for n in range(neurons):
                    new[n] -= early[n] * subtract[n]
            if wipe:
                for n in range(neurons):
                    new[n] -= early[n] * (new[n] - value[n])
            for n in range(neurons):
                over[n] = new[n] - threshold[n]

    @jit
    def commit(t, spike, p, immediate, zero_now, delayed, r, v, u, membrane, spikes, history, pad, remembers):  # type: ignore[no-untyped-def]  # fmt: skip
        """Write s[t], v[t] and the next input s[t] of the recurrent connection."""
        batch, neurons = v.shape
        subtract, value = p[6], p[7]
        for b in range(batch):
            new, old, fired, early, out = u[t, b], v[b], spike[b], r[b], membrane[t, b]
            kept = spikes[t, b]
            for n in range(neurons):
                kept[n] = fired[n]
            for n in range(neurons):
                old[n] = new[n]
            if immediate:
                for n in range(neurons):
                    old[n] -= (fired[n] - early[n]) * (subtract[n] + zero_now * (new[n] - value[n]))
                for n in range(neurons):
                    out[n] = old[n]
            if delayed:
                for n in range(neurons):
                    early[n] = fired[n]
        if remembers and pad + t + 1 < history.shape[0]:
            following = history[pad + t + 1]
            for n in range(neurons):
                for b in range(batch):
                    following[n, b] = spike[b, n]

    @jit
    def adjoint(t, grad_spikes, grad_membrane, slope, spikes, r, first_r, u, membrane, start, p, scales, synaptic, back,
                recurs, gv, gi, gs, grad_drive, into_sum, into_membrane, into_spike, record):  # type: ignore[no-untyped-def]  # fmt: skip
        """One step of the adjoint, last step first; see ``rollout_neuron`` for the equations."""
        zero_old, wipe, zero_now, through_now, through_old = scales
        batch, neurons = gv.shape
        decay, alpha, gain, old_subtract, now_subtract, value = p[0], p[1], p[2], p[5], p[6], p[7]
        ds, dv, du, dw = np.empty_like(gv[0]), np.empty_like(gv[0]), np.empty_like(gv[0]), np.empty_like(gv[0])
        for b in range(batch):
            early = r[t - 1, b] if t > 0 and r.shape[0] > 0 else first_r[b]
            fired, before, steep = spikes[t, b], u[t, b], slope[t, b]
            old = membrane[t - 1, b] if t > 0 else start[b]
            from_spikes, later = grad_spikes[t, b], gv[b]
            from_membrane = grad_membrane[min(t, grad_membrane.shape[0] - 1), b]  # a single step of zeros if absent
            reset_gradient, flow, extra, out = gs[b], gi[b], back[b], grad_drive[t, b]
            for n in range(neurons):
                ds[n] = from_spikes[n]
            for n in range(neurons):
                dv[n] = from_membrane[n] + later[n]
            if recurs:
                for n in range(neurons):
                    ds[n] += extra[n]
            if through_old:
                for n in range(neurons):
                    ds[n] += reset_gradient[n]
            if through_now:
                for n in range(neurons):
                    ds[n] -= (now_subtract[n] + zero_now * (before[n] - value[n])) * dv[n]
            for n in range(neurons):
                ds[n] *= steep[n]
            for n in range(neurons):
                du[n] = dv[n] + ds[n]
            if zero_now:
                for n in range(neurons):
                    du[n] -= dv[n] * (fired[n] - early[n])
            for n in range(neurons):
                dw[n] = du[n]
            if wipe:
                for n in range(neurons):
                    dw[n] -= du[n] * early[n]
            if through_old:
                for n in range(neurons):
                    reset_gradient[n] = -(old_subtract[n] + zero_old * decay[n] * (old[n] - value[n])) * du[n]
            for n in range(neurons):
                later[n] = decay[n] * dw[n]
            if zero_old:
                for n in range(neurons):
                    later[n] -= later[n] * early[n]
            if synaptic:
                for n in range(neurons):
                    flow[n] = gain[n] * dw[n] + alpha[n] * flow[n]
            else:
                for n in range(neurons):
                    flow[n] = gain[n] * dw[n]
            for n in range(neurons):
                out[n] = flow[n]
            if record > 0:
                into_sum[t, b, :] = dw
            if record > 1:
                into_membrane[t, b, :] = dv
                into_spike[t, b, :] = ds

    @jit
    def running_sums(z, first, second, out):  # type: ignore[no-untyped-def]
        """Add z to the first sum and the first to the second, in float64: no drift."""
        for n in range(z.shape[0]):
            for b in range(z.shape[1]):
                first[n, b] += z[n, b]
                second[n, b] += first[n, b]
                out[n, b] = second[n, b]

    @jit
    def turn(x, out):  # type: ignore[no-untyped-def]
        """Turn (neuron, batch) into (batch, neuron)."""
        for b in range(x.shape[1]):
            for n in range(x.shape[0]):
                out[b, n] = x[n, b]

    wide, narrow = make_gather(numba, 32), make_gather(numba, 8)

    @jit
    def read(flat, at, first, place, coefficient, out):  # type: ignore[no-untyped-def]
        """out[i] = sum_e coefficient[e] flat[at + place[e] ...], e = first[i] .. first[i + 1] - 1."""
        rows, batch = out.shape
        result = out.reshape(-1)
        for i in range(rows):
            b = 0
            while b + 32 <= batch:
                wide(result, i * batch + b, flat, at + b, place, coefficient, first[i], first[i + 1])
                b += 32
            while b + 8 <= batch:
                narrow(result, i * batch + b, flat, at + b, place, coefficient, first[i], first[i + 1])
                b += 8
            for rest in range(b, batch):
                total = 0.0
                for e in range(first[i], first[i + 1]):
                    total += coefficient[e] * flat[at + place[e] + rest]
                result[i * batch + rest] = total

    @jit
    def unroll(history, pad, sums, out):  # type: ignore[no-untyped-def]
        """Write (pad + time, neuron, batch) as (neuron, time batch); ``sums``: twice summed from the end."""
        neurons, batch = history.shape[1], history.shape[2]
        steps = out.shape[1] // batch
        for n in range(neurons):
            row = out[n]
            for t in range(steps):
                for b in range(batch):
                    row[t * batch + b] = history[pad + t, n, b]
            if sums:
                for _ in range(2):
                    for at in range((steps - 1) * batch - 1, -1, -1):
                        row[at] += row[at + batch]

    @fast
    def dot(x, g, lag):  # type: ignore[no-untyped-def]
        """sum_t x[t] g[t + lag] over flattened (time, batch); ``lag`` counts numbers."""
        past, now = x[: x.shape[0] - lag], g[lag:]
        total = x[0] * 0
        for at in range(past.shape[0]):
            total += past[at] * now[at]
        return total

    @fast
    def correlate_lines(x, g, pad, order, index, sums, out):  # type: ignore[no-untyped-def]
        """out[m, n] = sum_t x[t - index[m, n], n] g[t, n], last step first so that g can be summed on the way."""
        taps, neurons = index.shape
        batch = g.shape[2]
        for t in range(g.shape[0] - pad - 1, -1, -1):
            for n in range(neurons):
                first, second, now = sums[0, n], sums[1, n], g[t, n]
                if order > 0:
                    for b in range(batch):
                        first[b] += now[b]
                    for b in range(batch):
                        second[b] += first[b]
                else:
                    for b in range(batch):
                        second[b] = now[b]
                for m in range(taps):
                    source = t - index[m, n]
                    if source < 0 or (m > 0 and index[m, n] == index[0, n]):
                        continue
                    past = x[pad + source, n]
                    total = second[0] * 0
                    for b in range(batch):
                        total += past[b] * second[b]
                    out[m, n] += total
        for m in range(1, taps):
            for n in range(neurons):
                if index[m, n] == index[0, n]:
                    out[m, n] = out[0, n]

    @jit
    def correlate_synapses(x, g, batch, index, out):  # type: ignore[no-untyped-def]
        """out[i, j, m] = sum_t x[j, t - index[i, j, m]] g[i, t]; equal lags of one synapse are computed once."""
        rows, columns, taps = index.shape
        for i in range(rows):
            for j in range(columns):
                for m in range(taps):
                    known = -1
                    for earlier in range(m):
                        if index[i, j, earlier] == index[i, j, m]:
                            known = earlier
                    lag = index[i, j, m] * batch
                    if known >= 0:
                        out[i, j, m] = out[i, j, known]
                    else:
                        out[i, j, m] = dot(x[j], g[i], lag) if lag < x.shape[1] else 0.0

    return NumbaKernels(
        integrate, commit, adjoint, turn, read, running_sums, unroll, correlate_lines,
        correlate_synapses,
    )  # fmt: skip
