"""Synapses that decay each at its own rate, by Numba: backend ``cpu`` of the sequence operator and of its step form.

With ``X_ji[t] = decay_ji X_ji[t-1] + x_i[t]`` and ``y_j[t] = sum_i weight_ji X_ji[t]`` one sweep back in time is all
that the gradients need, and nothing of the forward pass is computed again:

    P_ji[t] = dy_j[t] + decay_ji P_ji[t+1]          dx_i[t]   = sum_j weight_ji P_ji[t]
    Q_ji[t] = P_ji[t+1] + decay_ji Q_ji[t+1]        dweight_ji = sum_t x_i[t] P_ji[t]
                                                    ddecay_ji  = weight_ji sum_t x_i[t] Q_ji[t]

Q is the derivative of P by the decay (Horner's scheme), so both sums run over the spikes only, and nothing is divided
by a decay. Arrays are ``(pre, post)``: the chains of one input are one vector over post, which stays in the cache.
Numbers that have decayed to almost nothing are set to zero, because subnormal arithmetic is a hundred times slower; a
NaN is not smaller than anything and stays.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from delaykit.functional.backend import register
from delaykit.functional.compiled import compiled, in_threads

DOT_PRODUCTS = ("contract", "reassoc", "nsz")


@register("decay_filter", "cpu")
def decay_filter(x: Tensor, decay: Tensor, weight: Tensor) -> Tensor:
    """Decay synapses; see :func:`delaykit.functional.portable.decay_filter`."""
    out = x.new_zeros(*x.shape[:2], weight.shape[0])
    operands = (*_arrays(x, decay.T, weight.T), _least(x), out.numpy())
    in_threads(
        lambda first, last: _filter(*operands, first, last), x.shape[1], x.shape[0] * x.shape[1] * weight.numel()
    )
    return out


@register("decay_filter_gradient", "cpu")
def decay_filter_gradient(
    x: Tensor, y: Tensor, decay: Tensor, weight: Tensor, into_x: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Pull a gradient back; see :func:`delaykit.functional.portable.decay_filter_gradient`."""
    grad_x = torch.empty_like(x, memory_format=torch.contiguous_format) if into_x else x.new_empty(0)
    grad_decay, grad_weight = (weight.new_zeros(weight.shape[::-1]) for _ in range(2))
    written = (grad_x if into_x else x.new_empty(0, 0, 0)).numpy()
    operands = (*_arrays(x, y, decay.T, weight.T), _least(x), written, grad_decay.numpy(), grad_weight.numpy())
    work = 2 * x.shape[0] * x.shape[1] * weight.numel()
    in_threads(lambda first, last: _gradient(*operands, first, last, into_x), weight.shape[1], work)
    return grad_x, grad_decay.T * weight, grad_weight.T.contiguous()


@register("decay_step", "cpu")
def decay_step(state: Tensor, x: Tensor, decay: Tensor, weight: Tensor) -> Tensor:
    """Move on one step; see :func:`delaykit.functional.decay_tape.decay_step`."""
    out = x.new_zeros(x.shape[0], weight.shape[1])
    operands = (state.numpy(), *_arrays(x, decay, weight), _least(x), out.numpy())
    in_threads(lambda first, last: _step(*operands, first, last), len(x), state.numel())
    return out


@register("decay_step_back", "cpu")
def decay_step_back(
    later: Tensor, slope: Tensor, y: Tensor | None, x: Tensor, decay: Tensor, weight: Tensor, grad_decay: Tensor,
    grad_weight: Tensor,
) -> Tensor:  # fmt: skip
    """Move back one step; see :func:`delaykit.functional.decay_tape.decay_step_back`."""
    grad_x = torch.empty_like(x, memory_format=torch.contiguous_format)
    y = x.new_zeros(len(x), weight.shape[1]) if y is None else y
    operands = (later.numpy(), slope.numpy(), *_arrays(y, x, decay, weight), _least(x))
    written = (grad_x.numpy(), grad_decay.numpy(), grad_weight.numpy())
    in_threads(lambda first, last: _step_back(*operands, *written, first, last), len(weight), 2 * later.numel())
    return grad_x


def _arrays(*tensors: Tensor) -> tuple[np.ndarray, ...]:
    return tuple(t.detach().contiguous().numpy() for t in tensors)


def _least(x: Tensor) -> Any:
    """Return the size below which a number counts as nothing, far above the subnormal ones."""
    return x.new_tensor(torch.finfo(x.dtype).tiny * 2**20).numpy()[()]


@compiled()
def _filter(x, decay, weight, least, out, first, last):  # type: ignore[no-untyped-def]
    """Add up one input after the other, from its first spike on; inputs that never fire cost nothing."""
    time, _, pre = x.shape
    post = decay.shape[1]
    nothing = decay.dtype.type(0)
    state = np.empty(post, decay.dtype)
    for b in range(first, last):
        rows = x[:, b].T.copy()
        for i in range(pre):
            row, r, w = rows[i], decay[i], weight[i]
            start = 0
            while start < time and row[start] == 0:
                start += 1
            state[:] = nothing
            for t in range(start, time):
                arriving, target = row[t], out[t, b]
                for j in range(post):
                    current = r[j] * state[j] + arriving * w[j]
                    current = nothing if abs(current) <= least else current
                    state[j] = current
                    target[j] += current


@compiled(DOT_PRODUCTS)
def _gradient(x, y, decay, weight, least, grad_x, grad_decay, grad_weight, first, last, into_x):  # type: ignore[no-untyped-def]
    """Sweep back; before an input's first spike only its own gradient is left to do."""
    time, batch, _ = x.shape
    post = decay.shape[1]
    nothing = decay.dtype.type(0)
    later, slope, row = np.empty(post, decay.dtype), np.empty(post, decay.dtype), np.empty(time, x.dtype)
    for b in range(batch):
        for i in range(first, last):
            start = time
            for t in range(time - 1, -1, -1):
                row[t] = x[t, b, i]
                start = t if row[t] != 0 else start
            r, w, into_decay, into_weight = decay[i], weight[i], grad_decay[i], grad_weight[i]
            later[:] = nothing
            slope[:] = nothing
            for t in range(time - 1, -1 if into_x else start - 1, -1):
                given, spike = y[t, b], row[t]
                if t >= start:
                    for j in range(post):
                        tangent = later[j] + r[j] * slope[j]
                        slope[j] = nothing if abs(tangent) <= least else tangent
                for j in range(post):
                    total = given[j] + r[j] * later[j]
                    later[j] = nothing if abs(total) <= least else total
                if spike != 0:
                    for j in range(post):
                        into_weight[j] += spike * later[j]
                        into_decay[j] += spike * slope[j]
                if into_x:
                    flow = nothing
                    for j in range(post):
                        flow += w[j] * later[j]
                    grad_x[t, b, i] = flow


@compiled()
def _step(state, x, decay, weight, least, out, first, last):  # type: ignore[no-untyped-def]
    """Read the old states, then let them decay and take the new input in."""
    pre, post = decay.shape
    nothing = decay.dtype.type(0)
    for b in range(first, last):
        target = out[b]
        for i in range(pre):
            row, r, w, arriving = state[b, i], decay[i], weight[i], x[b, i]
            for j in range(post):
                before = row[j]
                target[j] += w[j] * before
                after = r[j] * before
                after = nothing if abs(after) <= least else after
                row[j] = after + arriving


@compiled(DOT_PRODUCTS)
def _step_back(  # type: ignore[no-untyped-def]
    later, slope, y, x, decay, weight, least, grad_x, grad_decay, grad_weight, first, last
):
    """Collect what later steps have left for this one's input, then take this step's gradient in."""
    batch, post = y.shape
    nothing = decay.dtype.type(0)
    for b in range(batch):
        given = y[b]
        for i in range(first, last):
            p, q, r, w, spike = later[b, i], slope[b, i], decay[i], weight[i], x[b, i]
            if spike != 0:
                into_weight, into_decay = grad_weight[i], grad_decay[i]
                for j in range(post):
                    into_weight[j] += spike * p[j]
                    into_decay[j] += spike * q[j]
            flow = nothing
            for j in range(post):
                flow += w[j] * p[j]
                tangent, total = p[j] + r[j] * q[j], given[j] + r[j] * p[j]
                q[j] = nothing if abs(tangent) <= least else tangent
                p[j] = nothing if abs(total) <= least else total
            grad_x[b, i] = flow
