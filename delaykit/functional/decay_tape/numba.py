"""One step of synapses that decay, by Numba: backend ``cpu``.

Numbers that have decayed to almost nothing are set to zero, because subnormal arithmetic is a hundred times slower; a
NaN is not smaller than anything and stays.
"""

from __future__ import annotations

import torch
from torch import Tensor

from delaykit.functional.compiled import DOT_PRODUCTS, arrays, compiled, in_threads, least_normal


def decay_step(state: Tensor, x: Tensor, decay: Tensor, weight: Tensor) -> Tensor:
    """Move on one step; see :func:`delaykit.functional.decay_tape.torch.decay_step`."""
    out = x.new_zeros(x.shape[0], weight.shape[1])
    operands = (state.numpy(), *arrays(x), decay.numpy(), weight.numpy(), least_normal(x), out.numpy())
    in_threads(lambda first, last: _step(*operands, first, last), len(x), state.numel())
    return out


def decay_step_back(
    later: Tensor, slope: Tensor, y: Tensor | None, x: Tensor, decay: Tensor, weight: Tensor, grad_decay: Tensor,
    grad_weight: Tensor,
) -> Tensor:  # fmt: skip
    """Move back one step; see :func:`delaykit.functional.decay_tape.torch.decay_step_back`."""
    grad_x = torch.empty_like(x, memory_format=torch.contiguous_format)
    y = x.new_zeros(len(x), weight.shape[1]) if y is None else y
    operands = (later.numpy(), slope.numpy(), *arrays(y, x), decay.numpy(), weight.numpy(), least_normal(x))
    written = (grad_x.numpy(), grad_decay.numpy(), grad_weight.numpy())
    in_threads(lambda first, last: _step_back(*operands, *written, first, last), len(weight), 2 * later.numel())
    return grad_x


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
                tile_weight, tile_decay = grad_weight[i], grad_decay[i]
                for j in range(post):
                    tile_weight[j] += spike * p[j]
                    tile_decay[j] += spike * q[j]
            flow = nothing
            for j in range(post):
                flow += w[j] * p[j]
                tangent, total = p[j] + r[j] * q[j], given[j] + r[j] * p[j]
                q[j] = nothing if abs(tangent) <= least else tangent
                p[j] = nothing if abs(total) <= least else total
            grad_x[b, i] = flow
