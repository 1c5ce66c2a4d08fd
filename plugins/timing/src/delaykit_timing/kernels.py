"""Numba kernels, compiled on first use: neurons that share one order of arrivals, vectorised over neurons.

A tile is a block of neurons and a range of samples. Going forward, one pass over the arrivals keeps (I, V) of every
neuron in two short rows; a neuron can fire before the next arrival only if the tangent of V reaches the threshold
(V is concave while it rises under a positive current), and only those few are looked at one by one. Spikes are noted
in the order in which they are found, (interval, neuron, time, current), which is all that the way back needs.

Going back, (gI, gV) are the gradients of I and V. An arrival at t: dw = gI, dt = w (gI / tau_synapse - gV). A spike at
t_s with slope S = I - threshold / tau_membrane: g = dt_s - gV I, gV <- -g / S.
"""

from __future__ import annotations

import numpy as np

from delaykit.functional.compiled import DOT_PRODUCTS, compiled


@compiled()
def response(elapsed, tau_i, tau_v):  # type: ignore[no-untyped-def]
    """Return (e_I, e_V, kappa) after a time."""
    e_i = np.exp(-elapsed / tau_i)
    if tau_i == 2.0 * tau_v:
        return e_i, e_i * e_i, tau_i * e_i * (1.0 - e_i)
    e_v = np.exp(-elapsed / tau_v)
    difference = 1.0 / tau_v - 1.0 / tau_i
    if difference == 0.0:
        return e_i, e_v, elapsed * e_i
    size = abs(difference)
    return e_i, e_v, max(e_i, e_v) * -np.expm1(-size * elapsed) / size


@compiled(calls=[response])
def first_crossing(current, potential, left, tau_i, tau_v, threshold, closed):  # type: ignore[no-untyped-def]
    """Time until V reaches the threshold, -1 if not within ``left``; current > 0."""
    if potential >= threshold:
        return 0.0
    if closed:  # tau_i = 2 tau_v: threshold u^2 - a u + b = 0 for u = exp(s / tau_i)
        a = current * tau_i
        b = a - potential
        inside = a * a - 4.0 * b * threshold
        if inside < 0.0 or a <= 2.0 * threshold:
            return -1.0
        elapsed = tau_i * np.log(2.0 * b / (a + np.sqrt(inside)))
        return elapsed if elapsed < left else -1.0
    elapsed = 0.0
    for _ in range(200):  # from the left, on a concave rise: every iterate stays before the crossing
        e_i, e_v, kappa = response(elapsed, tau_i, tau_v)
        v = potential * e_v + current * kappa
        slope = current * e_i - v / tau_v
        if v >= threshold:
            return elapsed
        if slope <= 0.0:
            return -1.0
        step = (threshold - v) / slope
        elapsed += step
        if elapsed >= left:
            return -1.0
        if step <= 1e-16 * tau_v:
            return elapsed
    return elapsed


@compiled()
def grown(values):  # type: ignore[no-untyped-def]
    """Return a copy of twice the size."""
    larger = np.empty(2 * len(values), values.dtype)
    larger[: len(values)] = values
    return larger


@compiled(calls=[response, first_crossing, grown])
def forward_tile(  # type: ignore[no-untyped-def]
    times, pre, count, weight, first, last, samples, tau_i, tau_v, threshold, end, limit, closed, potential
):
    """Run one tile; returns (first spike of each sample, interval, neuron, time, current)."""
    width, rate = last - first, 1.0 / tau_v
    begin = np.zeros(samples[1] - samples[0] + 1, np.int64)
    interval, neuron = np.empty(256, np.int32), np.empty(256, np.int32)
    when, strength = np.empty(256, np.float64), np.empty(256, np.float64)
    now_i, now_v = np.empty(width), np.empty(width)
    next_i, next_v = np.empty(width), np.empty(width)
    fired, bar = np.empty(width, np.int64), np.empty(width)
    total = 0
    for b in range(samples[0], samples[1]):
        next_i[:], next_v[:], fired[:], bar[:] = 0.0, 0.0, 0, threshold
        for m in range(count[b]):
            here = times[b, m]
            gap = (times[b, m + 1] if m + 1 < count[b] else end) - here
            e_i, e_v, kappa = response(gap, tau_i, tau_v)
            row = weight[pre[b, m], first:last]
            hot = 0
            for j in range(width):
                i, v = next_i[j] + row[j], next_v[j]
                hot += v + max(i - v * rate, 0.0) * gap >= bar[j]
                now_i[j], now_v[j] = i, v
                next_v[j] = v * e_v + i * kappa
                next_i[j] = i * e_i
            if hot == 0 or gap <= 0.0:
                continue
            for j in range(width):
                i, v, at = now_i[j], now_v[j], here
                if not (i > 0.0 and v + max(i - v * rate, 0.0) * gap >= bar[j]):
                    continue
                left = gap
                while bar[j] < np.inf:
                    s = first_crossing(i, v, left, tau_i, tau_v, threshold, closed)
                    if s < 0.0:
                        break
                    i, v, at = i * np.exp(-s / tau_i), 0.0, at + s
                    left -= s
                    if total == len(when):
                        interval, neuron = grown(interval), grown(neuron)
                        when, strength = grown(when), grown(strength)
                    interval[total], neuron[total], when[total], strength[total] = m, first + j, at, i
                    total += 1
                    fired[j] += 1
                    if fired[j] == limit:
                        bar[j] = np.inf
                if at > here or v != now_v[j]:
                    e_i, e_v, kappa = response(left, tau_i, tau_v)
                    next_v[j] = v * e_v + i * kappa
                    next_i[j] = i * e_i
        potential[b, first:last] = next_v
        begin[b - samples[0] + 1] = total
    return begin, interval[:total].copy(), neuron[:total].copy(), when[:total].copy(), strength[:total].copy()


@compiled(DOT_PRODUCTS, calls=[response])
def backward_tile(  # type: ignore[no-untyped-def]
    times, pre, count, weight, first, last, samples, tau_i, tau_v, threshold, end, floor,
    begin, interval, neuron, when, strength, grad_when, grad_potential, grad_weight, grad_times,
):  # fmt: skip
    """Add the gradients of one tile to ``grad_weight (pre, post)`` and ``grad_times (sample, arrival)``."""
    width, rate = last - first, 1.0 / tau_i
    g_i, g_v = np.empty(width), np.empty(width)
    who, what_i, what_v = np.empty(width, np.int64), np.empty(width), np.empty(width)
    for b in range(samples[0], samples[1]):
        g_i[:] = 0.0
        g_v[:] = grad_potential[b, first:last]
        k, oldest = begin[b - samples[0] + 1] - 1, begin[b - samples[0]]
        for m in range(count[b] - 1, -1, -1):
            here = times[b, m]
            after = times[b, m + 1] if m + 1 < count[b] else end
            found = 0
            while k >= oldest and interval[k] == m:
                j = neuron[k] - first
                i, v, at = g_i[j], g_v[j], after
                while k >= oldest and interval[k] == m and neuron[k] - first == j:
                    e_i, e_v, kappa = response(at - when[k], tau_i, tau_v)
                    i, v = i * e_i + v * kappa, v * e_v
                    slope = max(strength[k] - threshold / tau_v, floor)
                    v = -(grad_when[k] - v * strength[k]) / slope
                    at = when[k]
                    k -= 1
                e_i, e_v, kappa = response(at - here, tau_i, tau_v)
                who[found], what_i[found], what_v[found] = j, i * e_i + v * kappa, v * e_v
                found += 1
            e_i, e_v, kappa = response(after - here, tau_i, tau_v)
            for j in range(width):
                g_i[j] = g_i[j] * e_i + g_v[j] * kappa
                g_v[j] *= e_v
            for n in range(found):
                g_i[who[n]], g_v[who[n]] = what_i[n], what_v[n]
            row, share, total = weight[pre[b, m], first:last], grad_weight[pre[b, m], first:last], 0.0
            for j in range(width):
                share[j] += g_i[j]
                total += row[j] * (g_i[j] * rate - g_v[j])
            grad_times[b, m] += total
