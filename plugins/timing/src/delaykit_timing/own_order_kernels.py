"""Numba kernels, compiled on first use: neurons that each have their own order of arrivals.

With a delay on every synapse, ``arrival = t + d[post, pre]``, each neuron sorts its arrivals anew, once on the way
there and once on the way back (kept is nothing but the spikes). The dynamics are those of
:mod:`delaykit_timing.kernels`, one neuron at a time.
"""

from __future__ import annotations

import numpy as np

from delaykit.functional.compiled import compiled
from delaykit_timing.kernels import first_crossing, grown, response


@compiled()
def sort_pairs(keys, values, size, spare_keys, spare_values, bucket):  # type: ignore[no-untyped-def]
    """Sort keys, and values with them, in place and stably: spread over as many buckets, then by insertion."""
    low = high = keys[0]
    for n in range(size):
        low, high = min(low, keys[n]), max(high, keys[n])
    scale = (size - 1) / (high - low) if high - low > 1e-200 else 0.0
    bucket[: size + 1] = 0
    for n in range(size):
        bucket[int((keys[n] - low) * scale) + 1] += 1
    for n in range(size):
        bucket[n + 1] += bucket[n]
    for n in range(size):
        place = int((keys[n] - low) * scale)
        spare_keys[bucket[place]], spare_values[bucket[place]] = keys[n], values[n]
        bucket[place] += 1
    for n in range(size):
        key, value, m = spare_keys[n], spare_values[n], n
        while m > 0 and keys[m - 1] > key:
            keys[m], values[m] = keys[m - 1], values[m - 1]
            m -= 1
        keys[m], values[m] = key, value


@compiled(calls=[sort_pairs])
def sort_arrivals(  # type: ignore[no-untyped-def]
    times, pre, count, delays, end, arrivals, order, spare, spare_order, bucket
):
    """Write the arrivals before ``end`` in ascending order and where they come from; returns how many there are."""
    kept, latest, ascending = 0, 0.0, True
    for m in range(count):
        arrival = times[m] + delays[pre[m]]
        if arrival < end:
            ascending &= arrival >= latest or kept == 0
            latest = arrival
            arrivals[kept], order[kept] = arrival, m
            kept += 1
    if not ascending:
        sort_pairs(arrivals, order, kept, spare, spare_order, bucket)
    return kept


@compiled()
def scratch(size):  # type: ignore[no-untyped-def]
    """Room for the arrivals of one neuron."""
    wholes = np.empty((2, size), np.int64)
    return np.empty(size), wholes[0], np.empty(size), wholes[1], np.empty(size + 2, np.int64)


@compiled(calls=[scratch, sort_arrivals, first_crossing, grown, response])
def forward_tile(  # type: ignore[no-untyped-def]
    times, pre, count, weight, delays, first, last, samples, tau_i, tau_v, threshold, end, limit, closed, potential
):
    """Run one tile; ``weight`` and ``delays`` are (post, pre). Returns what the other ``forward_tile`` returns."""
    begin = np.zeros(samples[1] - samples[0] + 1, np.int64)
    interval, neuron = np.empty(256, np.int32), np.empty(256, np.int32)
    when, strength = np.empty(256, np.float64), np.empty(256, np.float64)
    arrivals, order, spare, spare_order, bucket = scratch(times.shape[1])
    total = 0
    for b in range(samples[0], samples[1]):
        for j in range(first, last):
            kept = sort_arrivals(
                times[b], pre[b], count[b], delays[j], end, arrivals, order, spare, spare_order, bucket
            )
            i, v, fired = 0.0, 0.0, 0
            for m in range(kept):
                left = (arrivals[m + 1] if m + 1 < kept else end) - arrivals[m]
                i += weight[j, pre[b, order[m]]]
                at = arrivals[m]
                while fired < limit and i > 0.0 and left > 0.0:
                    if v + max(i - v / tau_v, 0.0) * left < threshold:
                        break
                    s = first_crossing(i, v, left, tau_i, tau_v, threshold, closed)
                    if s < 0.0:
                        break
                    i, v, at, left = i * np.exp(-s / tau_i), 0.0, at + s, left - s
                    if total == len(when):
                        interval, neuron = grown(interval), grown(neuron)
                        when, strength = grown(when), grown(strength)
                    interval[total], neuron[total], when[total], strength[total] = m, j, at, i
                    total, fired = total + 1, fired + 1
                e_i, e_v, kappa = response(left, tau_i, tau_v)
                i, v = i * e_i, v * e_v + i * kappa
            potential[b, j] = v
        begin[b - samples[0] + 1] = total
    return begin, interval[:total].copy(), neuron[:total].copy(), when[:total].copy(), strength[:total].copy()


@compiled(calls=[scratch, sort_arrivals, response])
def backward_tile(  # type: ignore[no-untyped-def]
    times, pre, count, weight, delays, first, last, samples, tau_i, tau_v, threshold, end, floor,
    begin, interval, neuron, when, strength, grad_when, grad_potential, grad_weight, grad_delays, grad_times,
):  # fmt: skip
    """Add the gradients of one tile; ``grad_weight`` and ``grad_delays`` are (post, pre)."""
    arrivals, order, spare, spare_order, bucket = scratch(times.shape[1])
    for b in range(samples[0], samples[1]):
        k, oldest = begin[b - samples[0] + 1] - 1, begin[b - samples[0]]
        for j in range(last - 1, first - 1, -1):
            kept = sort_arrivals(
                times[b], pre[b], count[b], delays[j], end, arrivals, order, spare, spare_order, bucket
            )
            i, v, at = 0.0, grad_potential[b, j], end
            for m in range(kept - 1, -1, -1):
                while k >= oldest and neuron[k] == j and interval[k] == m:
                    e_i, e_v, kappa = response(at - when[k], tau_i, tau_v)
                    i, v, at = i * e_i + v * kappa, v * e_v, when[k]
                    slope = max(strength[k] - threshold / tau_v, floor)
                    v = -(grad_when[k] - v * strength[k]) / slope
                    k -= 1
                e_i, e_v, kappa = response(at - arrivals[m], tau_i, tau_v)
                i, v, at = i * e_i + v * kappa, v * e_v, arrivals[m]
                source = pre[b, order[m]]
                shift = weight[j, source] * (i / tau_i - v)
                grad_weight[j, source] += i
                grad_delays[j, source] += shift
                grad_times[b, order[m]] += shift
