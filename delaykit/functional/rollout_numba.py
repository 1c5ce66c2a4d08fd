"""Numba kernels of the rollout: one time step of the neuron, one read of the taps, one sweep for their gradients.

Histories are ``(neuron, time, batch)``: the batch of one neuron at one step is contiguous, so a delay of ``k`` steps is
an offset of ``k * batch`` and every tap is one vector operation, whatever ``k``. What users see is ``(time, batch,
neuron)``; the neuron kernels turn it around on the way, ``batch x neuron`` numbers a step.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple


class NumbaKernels(NamedTuple):
    """The compiled functions."""

    integrate: Any
    commit: Any
    adjoint: Any
    read_lines: Any
    read_synapses: Any
    running_sums: Any
    correlate_lines: Any
    correlate_synapses: Any


@functools.cache
def numba_kernels() -> NumbaKernels | None:
    """Compile (on first use) and return the kernels; None where Numba is not installed."""
    try:
        import numba
    except ImportError:
        return None
    jit = numba.njit(nogil=True)
    fast = numba.njit(nogil=True, fastmath={"reassoc", "contract"})  # vectorised sums; NaN and inf stay what they are

    @jit
    def integrate(t, drive, recurrent, recurs, mask, masked, bias, p, zero_old, wipe, r, syn, v, u, shifted,
                  current, keep):  # type: ignore[no-untyped-def]  # fmt: skip
        """Write u[t] and u[t] - threshold; ``syn`` goes from alpha i_{t-1} to alpha i_t."""
        batch, neurons = v.shape
        for b in range(batch):
            for n in range(neurons):
                flow = drive[t, b, n]
                if recurs:
                    extra = bias[n] + recurrent[n, b]
                    flow += mask[b, n] * extra if masked else extra
                flow += syn[b, n]
                syn[b, n] = p[1, n] * flow
                current[t if keep else 0, b, n] = flow
                old = v[b, n]
                old -= zero_old * r[b, n] * (old - p[7, n])
                new = p[0, n] * old + p[2, n] * flow + p[3, n] - r[b, n] * p[5, n]
                new -= wipe * r[b, n] * (new - p[7, n])
                u[t, b, n] = new
                shifted[b, n] = new - p[4, n]

    @jit
    def commit(t, spike, p, immediate, zero_now, delayed, r, v, u, membrane, spikes, history, remembers):  # type: ignore[no-untyped-def]
        """Write s[t], v[t] and the next input s[t] of the recurrent connection."""
        batch, neurons = v.shape
        for b in range(batch):
            for n in range(neurons):
                s = spike[b, n]
                new = u[t, b, n]
                if immediate:
                    new -= (s - r[b, n]) * (p[6, n] + zero_now * (new - p[7, n]))
                    membrane[t, b, n] = new
                v[b, n] = new
                spikes[t, b, n] = s
                if delayed:
                    r[b, n] = s
        if remembers and t + 1 < history.shape[1]:
            for n in range(neurons):
                for b in range(batch):
                    history[n, t + 1, b] = spike[b, n]

    @jit
    def adjoint(t, grad_spikes, grad_membrane, slope, spikes, r, delayed, u, membrane, start, p, scales, mask,
                masked, back, recurs, gv, gi, gs, grad_drive, g, record, into_membrane, into_spike):  # type: ignore[no-untyped-def]  # fmt: skip
        """One step of the adjoint, last step first; see ``rollout._adjoint_step`` for the equations."""
        zero_old, wipe, zero_now, through_now, through_old = scales
        batch, neurons = gv.shape
        at = t if delayed else 0
        for b in range(batch):
            for n in range(neurons):
                early = r[at, b, n]
                ds = grad_spikes[t, b, n] + gs[b, n]
                if recurs:
                    ds += back[n, b]
                dv = grad_membrane[t, b, n] + gv[b, n]
                before = u[t, b, n]
                ds -= through_now * (p[6, n] + zero_now * (before - p[7, n])) * dv
                fire = ds * slope[t, b, n]
                du = dv * (1 - zero_now * (spikes[t, b, n] - early)) + fire
                dw = du * (1 - wipe * early)
                old = membrane[t - 1, b, n] if t > 0 else start[b, n]
                gs[b, n] = -through_old * (p[5, n] + zero_old * p[0, n] * (old - p[7, n])) * du
                gv[b, n] = p[0, n] * dw * (1 - zero_old * early)
                flow = p[2, n] * dw + p[1, n] * gi[b, n]
                gi[b, n] = flow
                grad_drive[t, b, n] = flow
                g[n, b] = mask[b, n] * flow if masked else flow
                if record:
                    into_membrane[t, b, n] = dv
                    into_spike[t, b, n] = fire

    @jit
    def running_sums(z, first, second, out):  # type: ignore[no-untyped-def]
        """Add z to the first sum and the first to the second, in float64: no drift."""
        for n in range(z.shape[0]):
            for b in range(z.shape[1]):
                first[n, b] += z[n, b]
                second[n, b] += first[n, b]
                out[n, b] = second[n, b]

    @jit
    def read_lines(history, t, sign, index, value, out):  # type: ignore[no-untyped-def]
        """out[n] = sum_m value[m, n] history[n, t - sign index[m, n]]."""
        taps, neurons = index.shape
        steps = history.shape[1]
        for n in range(neurons):
            out[n, :] = 0.0
            for m in range(taps):
                weight = value[m, n]
                source = t - sign * index[m, n]
                if weight != 0 and 0 <= source < steps:
                    for b in range(out.shape[1]):
                        out[n, b] += weight * history[n, source, b]

    @jit
    def read_synapses(history, t, sign, index, coefficient, out):  # type: ignore[no-untyped-def]
        """out[i] = sum_{j, m} coefficient[i, j, m] history[j, t - sign index[i, j, m]]."""
        rows, columns, taps = index.shape
        steps, batch = history.shape[1], history.shape[2]
        for i in range(rows):
            out[i, :] = 0.0
            for j in range(columns):
                for m in range(taps):
                    weight = coefficient[i, j, m]
                    source = t - sign * index[i, j, m]
                    if weight != 0 and 0 <= source < steps:
                        for b in range(batch):
                            out[i, b] += weight * history[j, source, b]

    @fast
    def dot(x, g, lag):  # type: ignore[no-untyped-def]
        """sum_t x[t] g[t + lag] over flattened (time, batch); ``lag`` counts numbers."""
        total = x[0] * 0
        for at in range(x.shape[0] - lag):
            total += x[at] * g[at + lag]
        return total

    @jit
    def correlate_lines(x, g, batch, index, out):  # type: ignore[no-untyped-def]
        """out[m, n] = sum_t x[n, t - index[m, n]] g[n, t]."""
        for m in range(index.shape[0]):
            for n in range(index.shape[1]):
                lag = index[m, n] * batch
                out[m, n] = dot(x[n], g[n], lag) if lag < x.shape[1] else 0.0

    @jit
    def correlate_synapses(x, g, batch, index, out):  # type: ignore[no-untyped-def]
        """out[i, j, m] = sum_t x[j, t - index[i, j, m]] g[i, t]; equal lags of one synapse are computed once."""
        rows, columns, taps = index.shape
        for i in range(rows):
            for j in range(columns):
                for m in range(taps):
                    lag = index[i, j, m] * batch
                    known = -1
                    for earlier in range(m):
                        if index[i, j, earlier] == index[i, j, m]:
                            known = earlier
                    if known >= 0:
                        out[i, j, m] = out[i, j, known]
                    else:
                        out[i, j, m] = dot(x[j], g[i], lag) if lag < x.shape[1] else 0.0

    return NumbaKernels(
        integrate, commit, adjoint, read_lines, read_synapses, running_sums, correlate_lines, correlate_synapses
    )
