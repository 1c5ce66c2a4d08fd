"""The compiled loops of exact gradients: events scattered and gathered at their arrivals, and a neuron's sequence.

Arrays are ``(time, batch, neuron)``, weights are turned to ``(pre, post)``. One row of the batch at a time has its
arrivals in a buffer that begins with the sequence and ends with as many rows as the largest delay reaches beyond it:
``at[i, j] = slot * post + j`` is where a spike of step 0 arrives in the flat buffer, no arrival needs a bounds check,
and what lies beyond the end is left there. Gradients wait in such a buffer in pairs: of the current, and of the
arrival's time for a weight of one. Numbers come in an array, so that float32 is not computed in float64.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import numpy as np

from delaykit.functional.compiled import compiled

SUMS = ("contract", "reassoc", "nsz")
# where `neuron.constants()` has what, and behind them what an operator adds
KEEP_V, KEEP_I, GAIN, THRESHOLD, DT, TAU_SYN, CHANGE, KEEP_A, COUPLE, PULL, HOP, CLING, REST, START, SHARP, MIDDLE = (
    range(16)
)
CHUNK = 256  # numbers that are looked through for spikes together
ZERO, ONE, ONCE, TIMED, MIN_SLOPE = range(16, 21)


@compiled()
def scatter(spikes, weight, at, late, out, first, last):
    """Add every spike's weights to the steps at which it arrives."""
    steps, _, pre = spikes.shape
    post = weight.shape[1]
    buffer = np.empty((steps + late) * post, out.dtype)
    for b in range(first, last):
        buffer[:] = 0
        for t in range(steps):
            now = t * post
            for i in range(pre):
                size = spikes[t, b, i]
                if size != 0:
                    w, to = weight[i], at[i]
                    for j in range(post):
                        buffer[now + to[j]] += size * w[j]
        for t in range(steps):
            target, start = out[t, b], t * post
            for j in range(post):
                target[j] = buffer[start + j]


@compiled(fastmath=SUMS)
def gather(spikes, weight, at, late, into_i, into_v, numbers, by_weight, by_time, into_clock, first, last):
    """Collect the gradients at every spike's arrivals: for weights, for times with a weight of one, for the clock."""
    steps, _, pre = spikes.shape
    post = weight.shape[1]
    rate, dt, zero = numbers[ONE] / numbers[TAU_SYN], numbers[DT], numbers[ZERO]
    pairs = np.zeros(((steps + late) * post, 2), into_i.dtype)
    for b in range(first, last):
        for t in range(steps):
            if into_clock.size > 0:
                into_clock[t, b] = zero
            gi, gv, start = into_i[t, b], into_v[t, b], t * post
            for j in range(post):
                pairs[start + j, 0] = gi[j]
                pairs[start + j, 1] = dt * (rate * gi[j] - gv[j])
        for t in range(steps):
            now = t * post
            for i in range(pre):
                size = spikes[t, b, i]
                if size != 0:
                    w, to, dw, dh = weight[i], at[i], by_weight[i], by_time[i]
                    total = zero
                    for j in range(post):
                        g, h = pairs[now + to[j], 0], size * pairs[now + to[j], 1]
                        dw[j] += size * g
                        dh[j] += h
                        total += w[j] * h
                    if into_clock.size > 0:
                        into_clock[t, b, i] = total


@compiled()
def scatter_sparse(spikes, weight, slots, out, most, first, last):
    """Do what ``scatter`` does, without a buffer: for rows that are mostly silent; False where they are not."""
    steps, batch, pre = spikes.shape
    post, wide, left = weight.shape[1], (last - first) * pre, most * (last - first)
    for t in range(steps):
        out[t, first:last] = 0
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
                    for j in range(post):
                        to = t + slots[i, j]
                        if to < steps:
                            out[to, b, j] += size * weight[i, j]
    return True


@compiled(fastmath=SUMS)
def gather_sparse(spikes, weight, slots, into_i, into_v, numbers, by_weight, by_time, into_clock, first, last):
    """Do what ``gather`` does, without a buffer, as ``scatter_sparse``."""
    steps, batch, pre = spikes.shape
    rate, dt, zero = numbers[ONE] / numbers[TAU_SYN], numbers[DT], numbers[ZERO]
    post, wide = weight.shape[1], (last - first) * pre
    for t in range(steps):
        row = spikes[t].reshape(batch * pre)[first * pre : last * pre]
        if into_clock.size > 0:
            into_clock[t, first:last] = zero
        for start in range(0, wide, CHUNK):
            stop, found = min(start + CHUNK, wide), 0
            for k in range(start, stop):
                found += row[k] != 0
            if found == 0:
                continue
            for k in range(start, stop):
                if row[k] != 0:
                    b, i, size, total = first + k // pre, k % pre, row[k], zero
                    for j in range(post):
                        to = t + slots[i, j]
                        if to < steps:
                            g = into_i[to, b, j]
                            h = size * dt * (rate * g - into_v[to, b, j])
                            by_weight[i, j] += size * g
                            by_time[i, j] += h
                            total += weight[i, j] * h
                    if into_clock.size > 0:
                        into_clock[t, b, i] = total


@compiled()
def lif_forward(jumps, weight, at, late, numbers, spikes, membrane, before, slope, alive, first, last):
    """Run LIF neurons; ``before`` is left out where it is empty, and so is the recurrent connection."""
    steps, batch, post = jumps.shape
    keep_v, keep_i, gain, threshold = numbers[KEEP_V], numbers[KEEP_I], numbers[GAIN], numbers[THRESHOLD]
    change, zero, one, once = numbers[CHANGE], numbers[ZERO], numbers[ONE], numbers[ONCE]
    wide = last - first
    recurrent, width = weight.size > 0, wide * post
    length = (steps + late) * post
    buffer = np.zeros(wide * length if recurrent else 0, jumps.dtype)
    v, i = np.zeros(width, jumps.dtype), np.zeros(width, jumps.dtype)
    lo, hi = first * post, last * post
    living = alive.reshape(batch * post)[lo:hi]
    living[:] = one
    for t in range(steps):
        jump, s = jumps[t].reshape(batch * post)[lo:hi], spikes[t].reshape(batch * post)[lo:hi]
        after, rise = membrane[t].reshape(batch * post)[lo:hi], slope[t].reshape(batch * post)[lo:hi]
        if before.size > 0:
            reached = before[t].reshape(batch * post)[lo:hi]
            for k in range(width):
                reached[k] = (keep_v * v[k] + gain * i[k]) * living[k]
        for k in range(width):
            u, c = keep_v * v[k] + gain * i[k], keep_i * i[k]
            due = living[k] if u >= threshold else zero
            living[k] -= once * due
            s[k] = due
            rise[k] = due * (c - change)
            u = zero if due > 0 else u * living[k]
            v[k] = u
            after[k] = u
            i[k] = c + jump[k]
        if recurrent:
            for b in range(wide):
                start, base = b * length + t * post, b * post
                for n in range(post):
                    i[base + n] += buffer[start + n]
                for n in range(post):
                    if s[base + n] != 0:
                        w, to = weight[n], at[n]
                        for j in range(post):
                            buffer[start + to[j]] += w[j]


@compiled()
def adex_forward(jumps, weight, at, late, numbers, spikes, membrane, before, slope, factor, alive, first, last):
    """Run AdEx neurons; ``factor`` is what the upstroke multiplies a small change of the membrane by."""
    steps, batch, post = jumps.shape
    keep_v, keep_i, gain, threshold = numbers[KEEP_V], numbers[KEEP_I], numbers[GAIN], numbers[THRESHOLD]
    keep_a, couple, pull, hop = numbers[KEEP_A], numbers[COUPLE], numbers[PULL], numbers[HOP]
    sharp, middle, rest, dt = numbers[SHARP], numbers[MIDDLE], numbers[REST], numbers[DT]
    zero, one, once = numbers[ZERO], numbers[ONE], numbers[ONCE]
    least = np.exp(-(threshold - middle) / sharp)
    wide = last - first
    recurrent, length = weight.size > 0, (steps + late) * post
    buffer = np.zeros(wide * length if recurrent else 0, jumps.dtype)
    v, i = np.zeros((wide, post), jumps.dtype), np.zeros((wide, post), jumps.dtype)
    a = np.full((wide, post), numbers[START], jumps.dtype)
    alive[first:last] = one
    for t in range(steps):
        for b in range(wide):
            row = first + b
            for k in range(post):
                u, c = keep_v * v[b, k] + gain * i[b, k] - pull * a[b, k], keep_i * i[b, k]
                slow, f = keep_a * a[b, k] + couple * v[b, k], one
                if u < threshold:
                    x = np.exp((u - middle) / sharp)
                    if x * (least + dt) >= one:
                        u, f = threshold, one / (x * least)
                    else:
                        u, f = u - sharp * np.log1p(-dt * x), one / (one - dt * x)
                due = alive[row, k] if u >= threshold else zero
                spikes[t, row, k], slope[t, row, k] = due, due * (c - slow - rest)
                factor[t, row, k] = f
                if before.size > 0:
                    before[t, row, k] = u * alive[row, k]
                alive[row, k] -= once * due
                v[b, k] = zero if due > 0 else u * alive[row, k]
                membrane[t, row, k], a[b, k], i[b, k] = v[b, k], slow + hop * due, c + jumps[t, row, k]
            if recurrent:
                start = b * length + t * post
                for n in range(post):
                    i[b, n] += buffer[start + n]
                for n in range(post):
                    if spikes[t, row, n] != 0:
                        w, to = weight[n], at[n]
                        for j in range(post):
                            buffer[start + to[j]] += w[j]


@compiled(fastmath=SUMS)
def backward(into_clock, into_membrane, into_before, spikes, slope, factor, alive, weight, at, late, numbers, every,
             into_i, into_v, by_weight, by_time, first, last):  # fmt: skip
    """Sweep the gradient of a sequence backwards; what is empty is left out."""
    steps, batch, post = spikes.shape
    keep_v, keep_i, gain, change = numbers[KEEP_V], numbers[KEEP_I], numbers[GAIN], numbers[CHANGE]
    keep_a, couple, pull = numbers[KEEP_A], numbers[COUPLE], numbers[PULL]
    zero, one, once, timed = numbers[ZERO], numbers[ONE], numbers[ONCE], numbers[TIMED]
    dt, min_slope, rate, cling = numbers[DT], numbers[MIN_SLOPE], one / numbers[TAU_SYN], numbers[CLING] * numbers[DT]
    wide = last - first
    recurrent, adex, width, length = weight.size > 0, factor.size > 0, wide * post, (steps + late) * post
    pairs = np.zeros((wide * length if recurrent else 0, 2), spikes.dtype)
    gv, gi = np.zeros(width, spikes.dtype), np.zeros(width, spikes.dtype)
    ga, gt = np.zeros(width, spikes.dtype), np.zeros(width, spikes.dtype)
    flat, lo, hi = batch * post, first * post, last * post
    living = np.empty(width, spikes.dtype)  # one until, going backwards, a neuron that fires once has fired
    living[:] = alive.reshape(flat)[lo:hi]
    for t in range(steps - 1, -1, -1):
        s, rise = spikes[t].reshape(flat)[lo:hi], slope[t].reshape(flat)[lo:hi]
        out_i, out_v = into_i[t].reshape(flat)[lo:hi], into_v[t].reshape(flat)[lo:hi]
        if into_membrane.size > 0:
            given = into_membrane[t].reshape(flat)[lo:hi]
            for k in range(width):
                gv[k] += given[k]
        for k in range(width):
            g = gv[k] * living[k]
            gv[k] = g
            out_v[k] = g
            out_i[k] = gi[k]
            living[k] += once * s[k]
        if into_clock.size > 0:
            gt[:] = into_clock[t].reshape(flat)[lo:hi]
        else:
            gt[:] = zero
        if recurrent:
            for b in range(wide):
                start, base = b * length + t * post, b * post
                for n in range(post):
                    pairs[start + n, 0] = gi[base + n]
                    pairs[start + n, 1] = dt * (rate * gi[base + n] - gv[base + n])
                for n in range(post):
                    if s[base + n] != 0:
                        w, to, dw, dh = weight[n], at[n], by_weight[n], by_time[n]
                        total = zero
                        for j in range(post):
                            g, h = pairs[start + to[j], 0], pairs[start + to[j], 1]
                            dw[j] += g
                            dh[j] += h
                            total += w[j] * h
                        gt[base + n] += timed * total
        if adex:
            for k in range(width):
                gt[k] += cling * ga[k]
        for k in range(width):
            steep = max(rise[k], min_slope)
            g = gv[k] * (one - once) * (rise[k] + change) / steep - gt[k] / (steep * dt)
            gv[k] = g if s[k] > 0 else gv[k]
        if into_before.size > 0:
            given = into_before[t].reshape(flat)[lo:hi]
            for k in range(width):
                gv[k] += given[k] * living[k]
        if adex:
            f = factor[t].reshape(flat)[lo:hi]
            for k in range(width):
                g = f[k] * gv[k]
                gi[k] = keep_i * gi[k] + gain * g
                gv[k] = keep_v * g + couple * ga[k]
                ga[k] = keep_a * ga[k] - pull * g
        else:
            for k in range(width):
                gi[k] = keep_i * gi[k] + gain * gv[k]
                gv[k] *= keep_v
        if every > 0 and t > 0 and t % every == 0:
            for b in range(wide):
                for g in (gv, gi, ga):
                    total = zero
                    for k in range(b * post, (b + 1) * post):
                        total += g[k] * g[k]
                    total = one / (one + np.sqrt(total))
                    for k in range(b * post, (b + 1) * post):
                        g[k] *= total
