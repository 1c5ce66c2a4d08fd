"""The compiled loops of a recurrent connection.

Spikes are rare, so what multiplies them goes by the numbers that are not zero; where too many are not, the product says
so and leaves the work to a dense one. Whole arrays are indexed by np.uintp where a slice in an inner loop would cost a
reference count, and a signed index a test for Python's negative ones.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import numpy as np

from delaykit.functional.compiled import compiled

MOST = 0.35  # share of numbers that are not zero up to which the sparse products are the faster ones (N 256 and 1024)
BLOCK = 64  # rows of a weight gradient that are handled together, from the cache


@compiled()
def sparse_product(x, transposed, out):
    """Write ``out = x @ transposed``, by the rows that x is active in; False, and nothing done, where x is dense."""
    batch, inputs = x.shape
    outputs, used = transposed.shape[1], 0
    for b in range(batch):
        row = x[b]
        for n in range(inputs):
            used += row[n] != 0
    if used > MOST * x.size:
        return False
    active = np.empty(inputs + 1, np.int64)
    for b in range(batch):
        row, target = x[b], out[b]
        used = 0
        for n in range(inputs):
            active[used] = n
            used += row[n] != 0
        target[:] = 0
        e = 0
        while e + 4 <= used:  # four rows at a time: a quarter of the loads and stores of the target
            i, j, k, m = active[e], active[e + 1], active[e + 2], active[e + 3]
            xi, xj, xk, xm = row[i], row[j], row[k], row[m]
            wi, wj, wk, wm = transposed[i], transposed[j], transposed[k], transposed[m]
            for n in range(outputs):
                target[n] += xi * wi[n] + xj * wj[n] + xk * wk[n] + xm * wm[n]
            e += 4
        for f in range(e, used):
            xi, wi = row[active[f]], transposed[active[f]]
            for n in range(outputs):
                target[n] += xi * wi[n]
    return True


@compiled()
def sparse_weight_gradient(grad, x, out):
    """Add ``x.T @ grad`` to ``out``; False, and nothing done, where x is dense."""
    rows, inputs = x.shape
    outputs, used = grad.shape[1], 0
    for r in range(rows):
        row = x[r]
        for n in range(inputs):
            used += row[n] != 0
    if used > MOST * x.size:
        return False
    active, count = np.empty((inputs, BLOCK + 1), np.int64), np.empty(inputs, np.int64)
    for start in range(0, rows, BLOCK):
        count[:] = 0
        for r in range(start, min(start + BLOCK, rows)):
            row = x[r]
            for n in range(inputs):
                active[n, count[n]] = r
                count[n] += row[n] != 0
        for n in range(inputs):
            at, target = active[n], out[n]
            e = 0
            while e + 4 <= count[n]:
                i, j, k, m = at[e], at[e + 1], at[e + 2], at[e + 3]
                xi, xj, xk, xm, gi, gj, gk, gm = x[i, n], x[j, n], x[k, n], x[m, n], grad[i], grad[j], grad[k], grad[m]
                for o in range(outputs):
                    target[o] += xi * gi[o] + xj * gj[o] + xk * gk[o] + xm * gm[o]
                e += 4
            for f in range(e, count[n]):
                xi, gi = x[at[f], n], grad[at[f]]
                for o in range(outputs):
                    target[o] += xi * gi[o]
    return True


@compiled()
def deliver_taps(x, slot, index, value, used_taps, pending, sums, out):
    """Add x to the steps at which its taps let it arrive, and move what arrives now from ``pending`` to ``out``."""
    batch, neurons = x.shape
    slots = pending.shape[1]
    active = np.empty(neurons + 1, np.int64)
    for b in range(batch):
        row, used = x[b], 0
        for n in range(neurons):
            active[used] = n
            used += row[n] != 0
        for e in range(used):
            n = active[e]
            for m in range(used_taps[n]):
                at = slot + index[n, m]
                pending[b, at - slots if at >= slots else at, n] += value[n, m] * row[n]
        now, target = pending[b, slot], out[b]
        if len(sums) > 0:  # two running sums, in float64: no drift
            first, second = sums[0, b], sums[1, b]
            for n in range(neurons):
                first[n] += now[n]
            for n in range(neurons):
                second[n] += first[n]
            for n in range(neurons):
                target[n] = second[n]
        else:
            for n in range(neurons):
                target[n] = now[n]
        now[:] = 0


@compiled()
def running_sums(z, sums, out):
    """Add z to the first sum and the first to the second, in float64: no drift."""
    first, second = sums[0], sums[1]
    for n in range(z.shape[0]):
        for b in range(z.shape[1]):
            first[n, b] += z[n, b]
            second[n, b] += first[n, b]
            out[n, b] = second[n, b]


@compiled()
def transpose(x, out):
    """Write x ``(neuron, batch)`` as ``(batch, neuron)``."""
    for b in range(x.shape[1]):
        for n in range(x.shape[0]):
            out[b, n] = x[n, b]


@compiled()
def list_events(x):
    """List what is not zero in x ``(row, neuron)``: row and number, of n from ``first[n]`` to ``first[n + 1]``."""
    rows, neurons = x.shape
    first = np.zeros(neurons + 1, np.int64)
    for r in range(rows):
        row = x[r]
        for n in range(neurons):
            first[n + 1] += row[n] != 0
    for n in range(neurons):
        first[n + 1] += first[n]
    place, size, end = np.empty(first[-1], np.int32), np.empty(first[-1], x.dtype), first.copy()
    for r in range(rows):
        row = x[r]
        for n in range(neurons):
            if row[n] != 0:
                place[end[n]], size[end[n]] = r, row[n]
                end[n] += 1
    return first, place, size


@compiled()
def correlate_events(first, place, size, late, grad, summed, index, paired, out):
    """Add ``sum_t x[t - late - index[i, j, m], j] grad[t, i]`` to ``out[i, j, m]``, or ``x[..., i]`` where ``paired``.

    x ``(time, batch, neuron)`` comes as its events, grad is ``(time, neuron, batch)``; ``summed``: twice, from the end.
    """
    rows, columns, taps = index.shape
    steps, batch = len(grad), grad.shape[2]
    row = np.empty(steps * batch, out.dtype)
    for i in range(rows):
        for t in range(steps):
            now = grad[t, i]
            for b in range(batch):
                row[t * batch + b] = now[b]
        if summed:
            for _ in range(2):
                for at in range((steps - 1) * batch - 1, -1, -1):
                    row[at] += row[at + batch]
        for j in range(columns):
            n = i if paired else j
            for m in range(taps):
                lag, total = (index[i, j, m] + late) * batch, out[i, j, m]
                for e in range(first[n], first[n + 1]):
                    if place[e] + lag >= steps * batch:
                        break
                    total += size[e] * row[place[e] + lag]
                out[i, j, m] = total


@compiled()
def correlate_step(x, flat, at, place, out):
    """Add ``sum_b x[b, n] flat[at + place[n, m] + b]`` to ``out[n, m]``, by the numbers of x that are not 0."""
    batch, neurons = x.shape
    active = np.empty(neurons + 1, np.int64)
    for b in range(batch):
        row, used = x[b], 0
        for n in range(neurons):
            active[used] = n
            used += row[n] != 0
        for e in range(used):
            n = active[e]
            for m in range(place.shape[1]):
                out[n, m] += row[n] * flat[np.uintp(at + place[n, m] + b)]


@compiled()
def read_rows(flat, at, first, place, weight, out):
    """Write ``out[i] = sum_e weight[e] flat[at + place[e] ...]``, e = first[i] .. first[i + 1] - 1."""
    rows, batch = out.shape
    for i in range(rows):
        total = out[i]
        total[:] = 0
        for e in range(first[i], first[i + 1]):
            size, source = weight[e], at + place[e]
            for b in range(batch):
                total[b] += size * flat[np.uintp(source + b)]
