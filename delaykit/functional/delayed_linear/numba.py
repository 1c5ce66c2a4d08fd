"""The sums over delayed synapses for the CPU, by Numba: backend ``cpu``.

They work on rows: a neuron's whole sequence, ``time * batch`` numbers in a row, so that a delay of k steps is an offset
of ``k * batch`` and a tap one multiply-add of two contiguous rows, however long the delay. Eight taps share a pass over
the output. Rows of spikes that are mostly silent are replaced by lists of events.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from delaykit.functional.compiled import DOT_PRODUCTS, arrays, compiled, in_threads

BLOCK_BYTES = 8192  # of a row handled before the next row, so that all input rows of a block stay in the cache
EVENT_DENSITY = {torch.float32: 0.025, torch.float64: 0.05}  # below, a list of events beats a vectorised row


def synapse_filter(x: Tensor, index: Tensor, value: Tensor, causal: bool) -> Tensor:
    """Filter synapses; see :func:`delaykit.functional.delayed_linear.torch.synapse_filter`."""
    time, batch, _ = x.shape
    out = torch.zeros(index.shape[1], time * batch, dtype=x.dtype)
    taps, rows = arrays(index, value), out.numpy()
    work = time * batch * index.numel()
    events = _events(x) if causal else None
    if events is not None:
        given = (*events, batch, *taps, rows)
        in_threads(lambda first, last: _scatter_events(*given, first, last), len(rows), work)
    else:
        source, start, step = _padded_rows(x, index, causal)
        operands = (source.ravel(), source.shape[1], start, step, *taps, rows.ravel(), BLOCK_BYTES // rows.itemsize)
        in_threads(lambda first, last: _mix_rows(*operands, first, last), len(rows), work)
    return out.T.reshape(time, batch, len(rows))


def synapse_correlation(x: Tensor, y: Tensor, index: Tensor) -> Tensor:
    """Correlate synapses; see :func:`delaykit.functional.delayed_linear.torch.synapse_correlation`."""
    time, batch, _ = x.shape
    out = torch.zeros(index.shape, dtype=x.dtype)
    (taps,), result = arrays(index), out.numpy()
    target = _rows(y).numpy()
    work = time * batch * index.numel()
    events = _events(x)
    if events is not None:
        given = (*events, batch, taps, target, result)
        in_threads(lambda first, last: _gather_events(*given, first, last), len(target), work)
    else:
        source, start, step = _padded_rows(x, index, True)
        sizes = source.shape[1], start, step
        operands = (source.ravel(), *sizes, taps, target.ravel(), result, BLOCK_BYTES // result.itemsize)
        in_threads(lambda first, last: _dot_rows(*operands, first, last), len(target), work)
    return out


def _rows(x: Tensor) -> Tensor:
    """Turn ``(time, batch, neuron)`` into contiguous ``(neuron, time * batch)``."""
    return x.detach().flatten(0, 1).T.contiguous()


def _padded_rows(x: Tensor, index: Tensor, causal: bool) -> tuple[np.ndarray, int, int]:
    """Make rows with silence where a tap looks outside the sequence: (rows, where a row starts, offset of one step)."""
    time, batch, neurons = x.shape
    silence = min(int(index.max()) if index.numel() else 0, time) * batch
    rows = torch.zeros(neurons, silence + time * batch, dtype=x.dtype)
    start = silence if causal else 0
    rows[:, start : start + time * batch] = x.detach().flatten(0, 1).T
    return rows.numpy(), start, -batch if causal else batch


def _events(x: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """List the non-zero entries of each row, (first event of a row, position, size), or None where there are many."""
    if not x.numel() or int(torch.count_nonzero(x)) > EVENT_DENSITY[x.dtype] * x.numel():
        return None
    rows = _rows(x)
    neuron, position = rows.nonzero(as_tuple=True)
    first = torch.searchsorted(neuron, torch.arange(rows.shape[0] + 1))
    return first.numpy(), position.numpy(), rows[neuron, position].numpy()


@compiled()
def _mix_rows(source, stride, start, step, index, value, out, block, first, last):  # type: ignore[no-untyped-def]
    """Add ``value[m, r, q]`` times row q, shifted by its delay, to row r of ``out`` for r in first .. last - 1."""
    taps, _, inputs = index.shape
    length = len(out) // index.shape[1]
    weight, where = np.zeros(taps * inputs + 8, out.dtype), np.zeros(taps * inputs + 8, np.uintp)
    for begin in range(0, length, block):
        end = min(length, begin + block)
        for r in range(first, last):
            count = 0
            for q in range(inputs):
                for m in range(taps):
                    offset = start + step * index[m, r, q]
                    if value[m, r, q] != 0 and 0 <= offset <= stride - length:
                        weight[count], where[count] = value[m, r, q], q * stride + offset + begin
                        count += 1
            for rest in range(count, (count + 7) // 8 * 8):
                weight[rest], where[rest] = 0, 0
            target = np.uintp(r * length + begin)
            for k in range(0, count, 8):
                w0, w1, w2, w3 = weight[k], weight[k + 1], weight[k + 2], weight[k + 3]
                w4, w5, w6, w7 = weight[k + 4], weight[k + 5], weight[k + 6], weight[k + 7]
                x0, x1, x2, x3 = where[k], where[k + 1], where[k + 2], where[k + 3]
                x4, x5, x6, x7 = where[k + 4], where[k + 5], where[k + 6], where[k + 7]
                for i in range(end - begin):
                    n = np.uintp(i)
                    one = (w0 * source[x0 + n] + w1 * source[x1 + n]) + (w2 * source[x2 + n] + w3 * source[x3 + n])
                    two = (w4 * source[x4 + n] + w5 * source[x5 + n]) + (w6 * source[x6 + n] + w7 * source[x7 + n])
                    out[target + n] += one + two


@compiled(DOT_PRODUCTS)
def _dot_rows(source, stride, start, step, index, target, out, block, first, last):  # type: ignore[no-untyped-def]
    """Add the dot product of row r of ``target`` with row q, shifted by ``index[m, r, q]``, to ``out[m, r, q]``."""
    taps, _, inputs = index.shape
    length = len(target) // index.shape[1]
    where, total = np.zeros(taps * inputs + 4, np.uintp), np.zeros(taps * inputs + 4, out.dtype)
    place = np.zeros((taps, inputs), np.int64)
    for begin in range(0, length, block):
        end = min(length, begin + block)
        for r in range(first, last):
            count = 0
            for q in range(inputs):
                for m in range(taps):
                    offset = start + step * index[m, r, q]
                    place[m, q] = -1
                    for earlier in range(m):  # a repeated step has the same product
                        if index[earlier, r, q] == index[m, r, q]:
                            place[m, q] = place[earlier, q]
                            break
                    if place[m, q] < 0 and 0 <= offset <= stride - length:
                        place[m, q], where[count] = count, q * stride + offset + begin
                        count += 1
            for rest in range(count, (count + 3) // 4 * 4):
                where[rest] = 0
            y = np.uintp(r * length + begin)
            for k in range(0, count, 4):
                x0, x1, x2, x3 = where[k], where[k + 1], where[k + 2], where[k + 3]
                t0 = t1 = t2 = t3 = out.dtype.type(0)
                for i in range(end - begin):
                    n = np.uintp(i)
                    now = target[y + n]
                    t0 += source[x0 + n] * now
                    t1 += source[x1 + n] * now
                    t2 += source[x2 + n] * now
                    t3 += source[x3 + n] * now
                total[k], total[k + 1], total[k + 2], total[k + 3] = t0, t1, t2, t3
            for m in range(taps):
                for q in range(inputs):
                    if place[m, q] >= 0:
                        out[m, r, q] += total[place[m, q]]


@compiled()
def _scatter_events(first_event, position, size, batch, index, value, out, first, last):  # type: ignore[no-untyped-def]
    """Let each event of row q arrive in ``out[r]`` after its delay."""
    taps, _, inputs = index.shape
    for r in range(first, last):
        target = out[r]
        for m in range(taps):
            for q in range(inputs):
                weight, delay = value[m, r, q], index[m, r, q] * batch
                if weight != 0:
                    for event in range(first_event[q], first_event[q + 1]):
                        arrival = position[event] + delay
                        if arrival >= target.shape[0]:
                            break
                        target[arrival] += weight * size[event]


@compiled(DOT_PRODUCTS)
def _gather_events(first_event, position, size, batch, index, target, out, first, last):  # type: ignore[no-untyped-def]
    """Sum ``target[r]`` over the arrivals of row q's events."""
    taps, _, inputs = index.shape
    for r in range(first, last):
        y = target[r]
        for q in range(inputs):
            where, sizes = position[first_event[q] : first_event[q + 1]], size[first_event[q] : first_event[q + 1]]
            for m in range(taps):
                delay, total, repeated = index[m, r, q] * batch, out.dtype.type(0), False
                for earlier in range(m):
                    if index[earlier, r, q] == index[m, r, q]:
                        total, repeated = out[earlier, r, q], True
                        break
                if not repeated:
                    in_time = np.searchsorted(where, y.shape[0] - delay)
                    for event in range(in_time):
                        total += y[where[event] + delay] * sizes[event]
                out[m, r, q] = total
