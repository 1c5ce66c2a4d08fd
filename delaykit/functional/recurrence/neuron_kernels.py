"""The compiled steps of a rollout's neuron; :mod:`delaykit.functional.recurrence.neuron` has the equations.

Many short loops over one row of neurons: each touches few arrays, so that it is vectorised.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import numpy as np

from delaykit.functional.compiled import compiled


@compiled(fastmath=())
def integrate(t, drive, recurrent, recurs, mask, masked, p, bias, synaptic, zero_old, delayed, wipe, r, syn, v, u,
              shifted, current, keep):  # fmt: skip
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


@compiled(fastmath=())
def commit(t, spike, above, p, immediate, zero_now, delayed, r, v, u, membrane, spikes):
    """Write s[t] and v[t], and remember what resets the next step; ``above``: ``spike`` is u_t - threshold."""
    batch, neurons = v.shape
    subtract, value = p[6], p[7]
    for b in range(batch):
        new, old, given, early, out = u[t, b], v[b], spike[b], r[b], membrane[t, b]
        fired = spikes[t, b]
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
                old[n] -= (fired[n] - early[n]) * (subtract[n] + zero_now * (new[n] - value[n]))
            for n in range(neurons):
                out[n] = old[n]
        if delayed:
            for n in range(neurons):
                early[n] = fired[n]


@compiled(fastmath=())
def adjoint(t, grad_spikes, grad_membrane, slope, spikes, r, first_r, u, membrane, start, p, scales, synaptic, back,
            recurs, gv, gi, gs, grad_drive, into_sum, into_membrane, into_spike, record):  # fmt: skip
    """One step of the adjoint, last step first; see ``rollout_neuron`` for the equations."""
    zero_old, wipe, zero_now, through_now, through_old = scales
    batch, neurons = gv.shape
    decay, alpha, gain, old_subtract, now_subtract, value = p[0], p[1], p[2], p[5], p[6], p[7]
    ds, dv, du, dw = np.empty_like(gv[0]), np.empty_like(gv[0]), np.empty_like(gv[0]), np.empty_like(gv[0])
    for b in range(batch):
        early = r[t - 1, b] if t > 0 and r.shape[0] > 0 else first_r[b]
        fired, before, steep = spikes[t, b], u[t, b], slope[b]
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
