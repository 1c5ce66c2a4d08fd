"""The compiled loops of exact neurons: LIF and AdEx forward over a sequence, and the sweep back.

Arrays, buffers and the sums of an arrival are those of :mod:`.arrival_kernels`. A step's state is looked at twice,
before the arrivals of the step and with them, for which of the two came first is the order in which things happen;
``order`` keeps 1 where a spike came before the arrivals of its step.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import numpy as np

from delaykit.functional.compiled import DOT_PRODUCTS, compiled
from delaykit_spatial.exact.neuron import FULL, ROUNDS

# where `neuron.constants()` has what, and behind them what an operator adds
(
    KEEP_V, KEEP_I, GAIN, THRESHOLD, DT, TAU_SYN, CHANGE, KEEP_A, COUPLE, PULL, JUMP_A, RATE_A, REST, START, SHARP,
    MIDDLE, LEAK, BEGIN,
) = range(18)  # fmt: skip
ZERO, ONE, ONCE, TIMED, MIN_SLOPE = range(18, 23)


@compiled()
def lif_forward(i_jump, v_jump, weight, kept, lack, at, late, numbers, spikes, clock, membrane, before, slope, order,
                alive, first, last):  # fmt: skip
    """Run LIF neurons; ``before``, the jumps of the membrane and the recurrent connection are left out if empty."""
    steps, batch, post = i_jump.shape
    keep_v, keep_i, gain, threshold = numbers[KEEP_V], numbers[KEEP_I], numbers[GAIN], numbers[THRESHOLD]
    rest, zero, one, once = numbers[REST], numbers[ZERO], numbers[ONE], numbers[ONCE]
    dt, tau, leak, least = numbers[DT], numbers[TAU_SYN], numbers[LEAK], numbers[MIN_SLOPE]
    decay, most = one / tau, dt * FULL
    rate = decay - leak
    up, step = np.exp(dt * decay), dt * decay
    wide = last - first
    recurrent, width = kept.size > 0, wide * post
    length = (steps + late) * post
    buffer = np.zeros((wide * length if recurrent else 0, 2), i_jump.dtype)
    v, i = np.zeros(width, i_jump.dtype), np.zeros(width, i_jump.dtype)
    u, c = np.zeros(width, i_jump.dtype), np.zeros(width, i_jump.dtype)
    lo, hi = first * post, last * post
    living = alive.reshape(batch * post)[lo:hi]
    living[:] = one
    for t in range(steps):
        jump, s = i_jump[t].reshape(batch * post)[lo:hi], spikes[t].reshape(batch * post)[lo:hi]
        after, rise = membrane[t].reshape(batch * post)[lo:hi], slope[t].reshape(batch * post)[lo:hi]
        tick, which = clock[t].reshape(batch * post)[lo:hi], order[t].reshape(batch * post)[lo:hi]
        for k in range(width):
            s[k], rise[k], tick[k], which[k] = zero, zero, zero, 0
            u[k], c[k] = keep_v * v[k] + gain * i[k], keep_i * i[k]
            v[k], i[k] = u[k], c[k] + jump[k]
        if v_jump.size > 0:
            push = v_jump[t].reshape(batch * post)[lo:hi]
            for k in range(width):
                v[k] += push[k]
        if recurrent:
            for b in range(wide):
                start, base = b * length + t * post, b * post
                for n in range(post):
                    i[base + n] += buffer[start + n, 0]
                    v[base + n] += tau * buffer[start + n, 1]
        if before.size > 0:
            reached = before[t].reshape(batch * post)[lo:hi]
            for k in range(width):
                reached[k] = v[k] * living[k]
        for k in range(width):
            if (v[k] >= threshold or u[k] >= threshold) and living[k] > 0:
                for early in range(2):
                    x, y = (v[k], i[k]) if early == 1 else (u[k], c[k])
                    if x < threshold:
                        continue
                    lead = min(max((x - threshold) / max(y - leak * x, least), zero), most)
                    for turn in range(ROUNDS + 1):
                        gone = np.expm1(rate * lead) / rate if rate != 0 else lead
                        keep, steep = np.exp(lead * leak), y * np.exp(lead * decay) - rest
                        if turn < ROUNDS:
                            past = (keep * (x - gone * y) - threshold) / max(steep, least)
                            lead = min(max(lead + past, zero), most)
                    if early == 0:
                        arrived = i[k] - c[k]
                        ratio = (v[k] - u[k]) / (tau * arrived) if arrived != 0 else zero
                        if np.expm1(lead * decay) < ratio:
                            continue
                    s[k], tick[k], rise[k], which[k] = one, -lead / dt, steep, 1 - early
                    if before.size > 0:
                        reached[k] = x
                    living[k] -= once
                    v[k] = gone * y + (v[k] - u[k] if early == 0 else zero)
                    break
            v[k] *= living[k]
            after[k] = v[k]
        if recurrent:
            for b in range(wide):
                start, base = b * length + t * post, b * post
                for n in range(post):
                    if s[base + n] != 0:
                        told = tick[base + n]
                        w, e, short, to = weight[n], kept[n], lack[n], at[n]
                        shrink, limit = np.exp(step * told), one + told
                        grown, sooner = shrink * up, start - post
                        for j in range(post):
                            soon = short[j] >= limit
                            k, y = to[j] + (sooner if soon else start), e[j] * (grown if soon else shrink)
                            buffer[k, 0] += y
                            buffer[k, 1] += w[j] - y


@compiled()
def adex_forward(i_jump, v_jump, weight, kept, lack, at, late, numbers, spikes, clock, membrane, before, slope, order,
                 factor, alive, first, last):  # fmt: skip
    """Run AdEx neurons; ``factor`` is what each half of the upstroke multiplies a small change of the membrane by."""
    steps, batch, post = i_jump.shape
    keep_v, keep_i, gain, threshold = numbers[KEEP_V], numbers[KEEP_I], numbers[GAIN], numbers[THRESHOLD]
    keep_a, couple, pull, jump_a = numbers[KEEP_A], numbers[COUPLE], numbers[PULL], numbers[JUMP_A]
    sharp, middle, rest, dt = numbers[SHARP], numbers[MIDDLE], numbers[REST], numbers[DT]
    zero, one, once, tau, rate_a = numbers[ZERO], numbers[ONE], numbers[ONCE], numbers[TAU_SYN], numbers[RATE_A]
    begin, flat, decay, most = numbers[BEGIN], numbers[MIN_SLOPE], one / tau, dt * FULL
    least = np.exp(-(threshold - middle) / sharp)
    half = dt / (one + one)
    onset = middle - sharp * np.log(least + half)  # from here on, half an upstroke ends beyond the threshold
    up, step = np.exp(dt * decay), dt * decay
    wide = last - first
    recurrent, length = kept.size > 0, (steps + late) * post
    buffer = np.zeros((wide * length if recurrent else 0, 2), i_jump.dtype)
    v, i = np.zeros((wide, post), i_jump.dtype), np.zeros((wide, post), i_jump.dtype)
    a = np.full((wide, post), numbers[START], i_jump.dtype)
    alive[first:last] = one
    for t in range(steps):
        for b in range(wide):
            row, start = first + b, b * length + t * post
            for k in range(post):
                x, living = v[b, k], alive[row, k]
                if x >= threshold:
                    x, ahead = x + sharp / least * half, one
                else:
                    rise = np.exp((x - middle) / sharp)
                    if x >= onset:
                        x, ahead = threshold + sharp / least * (half + least - one / rise), one / (rise * least)
                    else:
                        x, ahead = x - sharp * np.log1p(-half * rise), one / (one - half * rise)
                u, c = keep_v * x + gain * i[b, k] - pull * a[b, k], keep_i * i[b, k]
                slow = keep_a * a[b, k] + couple * x
                jump, push = i_jump[t, row, k], v_jump[t, row, k] if v_jump.size > 0 else zero
                if recurrent:
                    jump += buffer[start + k, 0]
                    push += tau * buffer[start + k, 1]
                due, y, f, lead, early = zero, zero, one, zero, False
                for other in range(2):
                    x, y, f = (u + push, c + jump, one) if other == 1 else (u, c, one)
                    if x < onset or living == 0:
                        continue
                    if x < threshold:
                        rise = np.exp((x - middle) / sharp)
                        x, f = threshold + sharp / least * (half + least - one / rise), one / (rise * least)
                    else:
                        x += sharp / least * half
                    lead = min(max((x - threshold) / max(y - slow - rest, flat), zero), most)
                    early = other == 0
                    if early and np.expm1(lead * decay) < (push / (tau * jump) if jump != 0 else zero):
                        continue
                    due = one
                    break
                if due > 0:
                    after = lead * (y - slow + begin) + (push if early else zero)
                else:
                    lead, early = zero, False
                    if living > 0:
                        rise = np.exp((x - middle) / sharp)
                        x, f = x - sharp * np.log1p(-half * rise), one / (one - half * rise)
                    after = x
                spikes[t, row, k], clock[t, row, k], slope[t, row, k] = due, -lead / dt, due * (y - slow - rest)
                factor[0, t, row, k], factor[1, t, row, k], order[t, row, k] = ahead, f, 1 if early else 0
                if before.size > 0:
                    before[t, row, k] = x * living
                alive[row, k] -= once * due
                v[b, k] = after * alive[row, k]
                membrane[t, row, k], a[b, k], i[b, k] = v[b, k], slow + jump_a * due - rate_a * lead, c + jump
            if recurrent:
                for n in range(post):
                    if spikes[t, row, n] != 0:
                        told = clock[t, row, n]
                        w, e, short, to = weight[n], kept[n], lack[n], at[n]
                        shrink, limit = np.exp(step * told), one + told
                        grown, sooner = shrink * up, start - post
                        for j in range(post):
                            soon = short[j] >= limit
                            k, y = to[j] + (sooner if soon else start), e[j] * (grown if soon else shrink)
                            buffer[k, 0] += y
                            buffer[k, 1] += w[j] - y


@compiled(DOT_PRODUCTS)
def backward(grad_clock, grad_membrane, grad_before, spikes, clock, slope, order, factor, alive, kept, lack, at, late,
             numbers, every, grad_i, grad_v, grad_kept, grad_rest, first, last):  # fmt: skip
    """Sweep the gradient of a sequence backwards; what is empty is left out."""
    steps, batch, post = spikes.shape
    keep_v, keep_i, gain, change = numbers[KEEP_V], numbers[KEEP_I], numbers[GAIN], numbers[CHANGE]
    keep_a, couple, pull, leak = numbers[KEEP_A], numbers[COUPLE], numbers[PULL], numbers[LEAK]
    zero, one, once, timed = numbers[ZERO], numbers[ONE], numbers[ONCE], numbers[TIMED]
    dt, min_slope, tau, rate_a = numbers[DT], numbers[MIN_SLOPE], numbers[TAU_SYN], numbers[RATE_A] * numbers[DT]
    step, rate = dt / tau, one / tau - leak
    up = np.exp(step)
    wide = last - first
    recurrent, adex, width, length = kept.size > 0, factor.size > 0, wide * post, (steps + late) * post
    pairs = np.zeros((wide * length if recurrent else 0, 2), spikes.dtype)
    gv, gi = np.zeros(width, spikes.dtype), np.zeros(width, spikes.dtype)
    ga, gt = np.zeros(width, spikes.dtype), np.zeros(width, spikes.dtype)
    flat, lo, hi = batch * post, first * post, last * post
    living = np.empty(width, spikes.dtype)  # one until, going backwards, a neuron that fires once has fired
    begun = alive.reshape(flat)[lo:hi]
    for k in range(width):  # not living[:] = begun: see delaykit.functional.compiled
        living[k] = begun[k]
    for t in range(steps - 1, -1, -1):
        s, rise = spikes[t].reshape(flat)[lo:hi], slope[t].reshape(flat)[lo:hi]
        tick, which = clock[t].reshape(flat)[lo:hi], order[t].reshape(flat)[lo:hi]
        out_i, out_v = grad_i[t].reshape(flat)[lo:hi], grad_v[t].reshape(flat)[lo:hi]
        if grad_membrane.size > 0:
            given = grad_membrane[t].reshape(flat)[lo:hi]
            for k in range(width):
                gv[k] += given[k]
        for k in range(width):
            gv[k] *= living[k]
            living[k] += once * s[k]
        if grad_clock.size > 0:
            given = grad_clock[t].reshape(flat)[lo:hi]
            for k in range(width):
                gt[k] = given[k]
        else:
            gt[:] = zero
        if recurrent:
            for b in range(wide):
                start, base = b * length + t * post, b * post
                for n in range(post):
                    if s[base + n] != 0:
                        told, total = tick[base + n], zero
                        e, short, to, dw, dh = kept[n], lack[n], at[n], grad_kept[n], grad_rest[n]
                        shrink, limit = np.exp(step * told), one + told
                        grown, sooner = shrink * up, start - post
                        for j in range(post):
                            soon = short[j] >= limit
                            k = to[j] + (sooner if soon else start)
                            g = (grown if soon else shrink) * pairs[k, 0]
                            dw[j] += g
                            dh[j] += pairs[k, 1]
                            total += e[j] * g
                        gt[base + n] += timed * step * total
        for k in range(width):
            out_i[k], out_v[k] = gi[k], gv[k]
            if s[k] > 0:
                lead, steep = -dt * tick[k], max(rise[k], min_slope)
                keep = one if adex else np.exp(lead * leak)
                gone = lead if adex or rate == 0 else np.expm1(rate * lead) / rate
                grad_lead = gv[k] * (rise[k] + change) / keep - (gt[k] + rate_a * ga[k]) / dt
                g = grad_lead * keep / steep
                gi[k] += gone * (gv[k] - g)
                ga[k] -= gone * (gv[k] - g) if adex else zero
                gv[k] = g
        if grad_before.size > 0:
            given = grad_before[t].reshape(flat)[lo:hi]
            for k in range(width):
                gv[k] += given[k] * living[k]
        if adex:
            f = factor[1, t].reshape(flat)[lo:hi]
            for k in range(width):
                gv[k] *= f[k]
        for k in range(width):
            out_i[k] = out_i[k] if which[k] > 0 else gi[k]
            out_v[k] = out_v[k] if which[k] > 0 else gv[k]
        if recurrent:
            for b in range(wide):
                start, base = b * length + t * post, b * post
                for n in range(post):
                    pairs[start + n, 0] = out_i[base + n] - tau * out_v[base + n]
                    pairs[start + n, 1] = out_v[base + n]
        for k in range(width):
            g = gv[k]
            gi[k] = keep_i * gi[k] + gain * g
            gv[k] = keep_v * g + couple * ga[k]
            ga[k] = keep_a * ga[k] - pull * g
        if adex:
            f = factor[0, t].reshape(flat)[lo:hi]
            for k in range(width):
                gv[k] *= f[k]
        if every > 0 and t > 0 and t % every == 0:
            for b in range(wide):
                for g in (gv, gi, ga):
                    total = zero
                    for k in range(b * post, (b + 1) * post):
                        total += g[k] * g[k]
                    total = one / (one + np.sqrt(total))
                    for k in range(b * post, (b + 1) * post):
                        g[k] *= total
