"""Synapses that decay each at its own rate, by Numba: backend ``cpu``.

With ``X_ji[t] = decay_ji X_ji[t-1] + x_i[t]`` and ``y_j[t] = sum_i weight_ji X_ji[t]`` one sweep back in time is all
that the gradients need, and nothing of the forward pass is computed again:

    P_ji[t] = grad_y_j[t] + decay_ji P_ji[t+1]      grad_x_i[t]    = sum_j weight_ji P_ji[t]
    Q_ji[t] = P_ji[t+1] + decay_ji Q_ji[t+1]        grad_weight_ji = sum_t x_i[t] P_ji[t]
                                                    grad_decay_ji  = weight_ji sum_t x_i[t] Q_ji[t]

Q is the derivative of P by the decay (Horner's scheme), so both sums run over the spikes only, and nothing is divided
by a decay. Arrays are ``(pre, post)``: the chains of one input are one vector over post, which stays in the cache.
A whole sequence is swept four steps at once, so that a chain stays in its register meanwhile.
Numbers that have decayed to almost nothing are set to zero, because subnormal arithmetic is a hundred times slower; a
NaN is not smaller than anything and stays.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from delaykit.functional.compiled import DOT_PRODUCTS, arrays, compiled, in_threads, least_normal

SEGMENT = 8  # steps whose currents stay in the first cache while all inputs add to them; a multiple of 4
INPUTS = 16  # inputs that are read together: one line of the cache


def decay_filter(x: Tensor, decay: Tensor, weight: Tensor) -> Tensor:
    """Decay synapses; see :func:`delaykit.functional.filtered_linear.torch.decay_filter`."""
    out = x.new_zeros(*x.shape[:2], weight.shape[0])
    operands = (*arrays(x, decay.T, weight.T), least_normal(x), out.numpy())
    in_threads(
        lambda first, last: _filter(*operands, first, last), x.shape[1], x.shape[0] * x.shape[1] * weight.numel()
    )
    return out


def decay_filter_gradient(
    x: Tensor, y: Tensor, decay: Tensor, weight: Tensor, needs_grad_x: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Pull a gradient back; see :func:`delaykit.functional.filtered_linear.torch.decay_filter_gradient`."""
    grad_x = torch.empty_like(x, memory_format=torch.contiguous_format) if needs_grad_x else x.new_empty(0)
    grad_decay, grad_weight = (torch.empty_like(weight, memory_format=torch.contiguous_format) for _ in range(2))
    operands = (*arrays(x, y, decay, weight), least_normal(x), grad_x.numpy() if needs_grad_x else None)
    written = (grad_decay.numpy(), grad_weight.numpy())
    work = 2 * x.shape[0] * x.shape[1] * weight.numel()
    in_threads(lambda first, last: _gradient(*operands, *written, first, last), weight.shape[1], work)
    return grad_x, grad_decay, grad_weight


@compiled()
def _filter(x, decay, weight, least, out, first, last):  # type: ignore[no-untyped-def]
    """Add up one input after the other, SEGMENT steps at a time; until its first spike an input costs nothing."""
    time, _, pre = x.shape
    post = decay.shape[1]
    nothing = decay.dtype.type(0)
    state, total = np.empty((pre, post), decay.dtype), np.empty((SEGMENT, post), decay.dtype)
    rows, fired = np.empty((pre, SEGMENT), x.dtype), np.empty(pre, np.bool_)
    for b in range(first, last):
        fired[:] = False
        for begin in range(0, time, SEGMENT):
            for k in range(SEGMENT):
                for i in range(pre):
                    rows[i, k] = x[begin + k, b, i] if begin + k < time else 0
            total[:] = nothing
            for i in range(pre):
                for t in range(0, SEGMENT, 4):
                    x0, x1, x2, x3 = rows[i, t], rows[i, t + 1], rows[i, t + 2], rows[i, t + 3]
                    if x0 == 0 and x1 == 0 and x2 == 0 and x3 == 0:
                        if fired[i]:
                            for j in range(post):
                                r = decay[i, j]
                                s0 = r * state[i, j]
                                s1 = r * s0
                                s2 = r * s1
                                s3 = r * s2
                                total[t, j] += s0
                                total[t + 1, j] += s1
                                total[t + 2, j] += s2
                                total[t + 3, j] += s3
                                state[i, j] = nothing if abs(s3) <= least else s3
                        continue
                    if not fired[i]:
                        fired[i] = True
                        state[i] = nothing
                    for j in range(post):
                        r, w = decay[i, j], weight[i, j]
                        s0 = r * state[i, j] + x0 * w
                        s1 = r * s0 + x1 * w
                        s2 = r * s1 + x2 * w
                        s3 = r * s2 + x3 * w
                        total[t, j] += s0
                        total[t + 1, j] += s1
                        total[t + 2, j] += s2
                        total[t + 3, j] += s3
                        state[i, j] = nothing if abs(s3) <= least else s3
            for k in range(min(SEGMENT, time - begin)):
                for j in range(post):
                    out[begin + k, b, j] = total[k, j]


@compiled(DOT_PRODUCTS)
def _gradient(x, y, decay, weight, least, grad_x, grad_decay, grad_weight, first, last):  # type: ignore[no-untyped-def]
    """Sweep back, INPUTS at a time; what lies before an input's first spike matters to its own gradient only.

    Decay, weight and their gradients are (post, pre) here and turned on the way. The steps begin with up to 3 silent
    ones before the first, ``ahead``, to be a multiple of 4; what these read of ``y`` meets no spike. Without ``grad_x``
    (None) the compiler leaves out what belongs to it.
    """
    time, batch, post = y.shape
    ahead = -time % 4
    end = time + ahead
    nothing = decay.dtype.type(0)
    later, slope = np.empty(post, decay.dtype), np.empty(post, decay.dtype)
    rows, flows = np.zeros((INPUTS, end), x.dtype), np.empty((INPUTS, end), x.dtype)
    r, w = np.empty((INPUTS, post), decay.dtype), np.empty((INPUTS, post), decay.dtype)
    tile_decay, tile_weight = np.empty_like(r), np.empty_like(w)
    for i in range(first, last, INPUTS):
        some = min(INPUTS, last - i)
        for n in range(some):
            for j in range(post):
                r[n, j], w[n, j] = decay[j, i + n], weight[j, i + n]
        tile_decay[:] = nothing
        tile_weight[:] = nothing
        for b in range(batch):
            for t in range(time):
                for n in range(some):
                    rows[n, ahead + t] = x[t, b, i + n]
            for n in range(some):
                start = 0
                if grad_x is None:
                    while start < end and rows[n, start] == 0:
                        start += 1
                later[:] = nothing
                slope[:] = nothing
                for t in range(end - 4, start - 4, -4):
                    x0, x1, x2, x3 = rows[n, t], rows[n, t + 1], rows[n, t + 2], rows[n, t + 3]
                    f0 = f1 = f2 = f3 = nothing
                    t0, t1, t2, t3 = max(t - ahead, 0), max(t + 1 - ahead, 0), max(t + 2 - ahead, 0), t + 3 - ahead
                    if x0 == 0 and x1 == 0 and x2 == 0 and x3 == 0:
                        for j in range(post):
                            decaying = r[n, j]
                            q3, p3 = later[j] + decaying * slope[j], y[t3, b, j] + decaying * later[j]
                            q2, p2 = p3 + decaying * q3, y[t2, b, j] + decaying * p3
                            q1, p1 = p2 + decaying * q2, y[t1, b, j] + decaying * p2
                            q0, p0 = p1 + decaying * q1, y[t0, b, j] + decaying * p1
                            later[j] = nothing if abs(p0) <= least else p0
                            slope[j] = nothing if abs(q0) <= least else q0
                            if grad_x is not None:
                                f0 += w[n, j] * p0
                                f1 += w[n, j] * p1
                                f2 += w[n, j] * p2
                                f3 += w[n, j] * p3
                    else:
                        for j in range(post):
                            decaying = r[n, j]
                            q3, p3 = later[j] + decaying * slope[j], y[t3, b, j] + decaying * later[j]
                            q2, p2 = p3 + decaying * q3, y[t2, b, j] + decaying * p3
                            q1, p1 = p2 + decaying * q2, y[t1, b, j] + decaying * p2
                            q0, p0 = p1 + decaying * q1, y[t0, b, j] + decaying * p1
                            later[j] = nothing if abs(p0) <= least else p0
                            slope[j] = nothing if abs(q0) <= least else q0
                            tile_weight[n, j] += x0 * p0 + x1 * p1 + x2 * p2 + x3 * p3
                            tile_decay[n, j] += x0 * q0 + x1 * q1 + x2 * q2 + x3 * q3
                            if grad_x is not None:
                                f0 += w[n, j] * p0
                                f1 += w[n, j] * p1
                                f2 += w[n, j] * p2
                                f3 += w[n, j] * p3
                    if grad_x is not None:
                        flows[n, t], flows[n, t + 1], flows[n, t + 2], flows[n, t + 3] = f0, f1, f2, f3
            if grad_x is not None:
                for t in range(time):
                    for n in range(some):
                        grad_x[t, b, i + n] = flows[n, ahead + t]
        for n in range(some):
            for j in range(post):
                grad_weight[j, i + n], grad_decay[j, i + n] = tile_weight[n, j], w[n, j] * tile_decay[n, j]
