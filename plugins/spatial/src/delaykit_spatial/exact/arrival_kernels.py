"""The compiled loops of exact gradients: events scattered to their arrivals, and gradients gathered there.

Arrays are ``(time, batch, neuron)``, those of synapses are turned to ``(pre, post)``. An arrival of weight w that comes
``rest`` before the end of its step leaves w e in the current and tau_syn w (1 - e) in the membrane there, with
e = exp(-rest / tau_syn): two sums, of w e and of w (1 - e). ``kept`` is w e for a spike at the end of its own step and
``lack`` the steps from such an arrival to the end of its step, in [0, 1). A spike's ``clock`` in (-1, 0] makes it
``lack - clock``; from 1 on, the arrival falls into the step before, and a step's decay (``up``) is taken back.

One row of the batch at a time has its arrivals in a buffer that begins with the sequence and ends with as many rows as
the largest delay reaches beyond it: ``at[i, j] = slot * post + j`` is where a spike of step 0 arrives in the flat
buffer, no arrival needs a bounds check, and what lies beyond the end is left there. Gradients wait in such a buffer in
pairs: ``g_i - tau_syn g_v`` and ``g_v``. Numbers come in an array, so that float32 is not computed in float64.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import numpy as np

from delaykit.functional.compiled import DOT_PRODUCTS, compiled

CHUNK = 256  # numbers that are looked through for spikes together
ZERO, ONE, TAU, RATE, UP = range(5)  # rate: dt / tau_syn; up: exp(rate)


@compiled()
def scatter(spikes, clock, weight, kept, lack, at, late, numbers, out_i, out_v, first, last):
    """Add every spike's weights to the steps in which it arrives."""
    steps, _, pre = spikes.shape
    post = weight.shape[1]
    zero, one, tau, rate, up = numbers[ZERO], numbers[ONE], numbers[TAU], numbers[RATE], numbers[UP]
    buffer = np.empty(((steps + late) * post, 2), out_i.dtype)
    for b in range(first, last):
        buffer[:] = 0
        for t in range(steps):
            now = t * post
            for i in range(pre):
                size = spikes[t, b, i]
                if size != 0:
                    w, e, short, to = weight[i], kept[i], lack[i], at[i]
                    c = clock[t, b, i] if clock.size > 0 else zero
                    keep = size * np.exp(rate * c)
                    for j in range(post):
                        early = short[j] - c >= one
                        k, y = now + to[j] - (post if early else 0), keep * e[j] * (up if early else one)
                        buffer[k, 0] += y
                        buffer[k, 1] += size * w[j] - y
        for t in range(steps):
            current, membrane, start = out_i[t, b], out_v[t, b], t * post
            for j in range(post):
                current[j] = buffer[start + j, 0]
                membrane[j] = tau * buffer[start + j, 1]


@compiled(DOT_PRODUCTS)
def gather(spikes, clock, kept, lack, at, late, grad_i, grad_v, numbers, grad_kept, grad_rest, grad_clock, first, last):
    """Collect the gradients at every spike's arrivals, over w e and over w; and for the clock."""
    steps, _, pre = spikes.shape
    post = kept.shape[1]
    zero, one, tau, rate, up = numbers[ZERO], numbers[ONE], numbers[TAU], numbers[RATE], numbers[UP]
    pairs = np.zeros(((steps + late) * post, 2), grad_i.dtype)
    for b in range(first, last):
        for t in range(steps):
            if grad_clock.size > 0:
                grad_clock[t, b] = zero
            gi, gv, start = grad_i[t, b], grad_v[t, b], t * post
            for j in range(post):
                pairs[start + j, 0] = gi[j] - tau * gv[j]
                pairs[start + j, 1] = gv[j]
        for t in range(steps):
            now = t * post
            for i in range(pre):
                size = spikes[t, b, i]
                if size != 0:
                    e, short, to, dw, dh = kept[i], lack[i], at[i], grad_kept[i], grad_rest[i]
                    c, total = clock[t, b, i] if clock.size > 0 else zero, zero
                    keep = size * np.exp(rate * c)
                    for j in range(post):
                        early = short[j] - c >= one
                        k = now + to[j] - (post if early else 0)
                        g = keep * (up if early else one) * pairs[k, 0]
                        dw[j] += g
                        dh[j] += size * pairs[k, 1]
                        total += e[j] * g
                    if grad_clock.size > 0:
                        grad_clock[t, b, i] = rate * total


@compiled()
def scatter_sparse(spikes, clock, weight, kept, lack, slots, most, numbers, out_i, out_v, first, last):
    """Do what ``scatter`` does, without a buffer: for rows that are mostly silent; False where they are not."""
    steps, batch, pre = spikes.shape
    post, wide, left = weight.shape[1], (last - first) * pre, most * (last - first)
    zero, one, tau, rate, up = numbers[ZERO], numbers[ONE], numbers[TAU], numbers[RATE], numbers[UP]
    for t in range(steps):
        out_i[t, first:last] = 0
        out_v[t, first:last] = 0
    for t in range(steps):
        row = spikes[t].reshape(batch * pre)[first * pre : last * pre]
        for start in range(0, wide, CHUNK):
            stop, found = min(start + CHUNK, wide), 0
            for k in range(start, stop):
                found += row[k] != 0
            if found == 0:
                continue
            left -= found
            if left < 0:
                return False
            for k in range(start, stop):
                if row[k] != 0:
                    b, i, size = first + k // pre, k % pre, row[k]
                    c = clock[t, b, i] if clock.size > 0 else zero
                    keep = size * np.exp(rate * c)
                    for j in range(post):
                        early = lack[i, j] - c >= one
                        to = t + slots[i, j] - (1 if early else 0)
                        if to < steps:
                            y = keep * kept[i, j] * (up if early else one)
                            out_i[to, b, j] += y
                            out_v[to, b, j] += tau * (size * weight[i, j] - y)
    return True


@compiled(DOT_PRODUCTS)
def gather_sparse(
    spikes, clock, kept, lack, slots, grad_i, grad_v, numbers, grad_kept, grad_rest, grad_clock, first, last
):
    """Do what ``gather`` does, without a buffer, as ``scatter_sparse``."""
    steps, batch, pre = spikes.shape
    zero, one, tau, rate, up = numbers[ZERO], numbers[ONE], numbers[TAU], numbers[RATE], numbers[UP]
    post, wide = kept.shape[1], (last - first) * pre
    for t in range(steps):
        row = spikes[t].reshape(batch * pre)[first * pre : last * pre]
        if grad_clock.size > 0:
            grad_clock[t, first:last] = zero
        for start in range(0, wide, CHUNK):
            stop, found = min(start + CHUNK, wide), 0
            for k in range(start, stop):
                found += row[k] != 0
            if found == 0:
                continue
            for k in range(start, stop):
                if row[k] != 0:
                    b, i, size, total = first + k // pre, k % pre, row[k], zero
                    c = clock[t, b, i] if clock.size > 0 else zero
                    keep = size * np.exp(rate * c)
                    for j in range(post):
                        early = lack[i, j] - c >= one
                        to = t + slots[i, j] - (1 if early else 0)
                        if to < steps:
                            gv = grad_v[to, b, j]
                            g = keep * (up if early else one) * (grad_i[to, b, j] - tau * gv)
                            grad_kept[i, j] += g
                            grad_rest[i, j] += size * gv
                            total += kept[i, j] * g
                    if grad_clock.size > 0:
                        grad_clock[t, b, i] = rate * total
