"""The operators for the CPU, by Numba: backend ``cpu``. Threads share the batch or the outputs, never a number."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from delaykit.functional.backend import register
from delaykit.functional.compiled import compiled, in_threads

EVENT_DENSITY = 0.15  # of the input, above which whole rows are added, eight numbers at a time
BLOCK = 512  # numbers of a row handled before the next row, so that all rows stay in the cache


@register("sparsify_filter", "cpu")
def sparse_filter(x: Tensor, first: Tensor, post: Tensor, tau: Tensor, value: Tensor, outputs: int) -> Tensor:
    """Deliver all spikes; see :func:`delaykit_sparsify.portable.sparse_filter`."""
    time, batch, _ = x.shape
    lists = first.numpy(), post.numpy(), tau.numpy(), value.detach().numpy()
    used = int(torch.count_nonzero(x))
    if used <= EVENT_DENSITY * x.numel():
        out, given = x.new_zeros(time, batch, outputs), x.contiguous().numpy()
        work = used * len(post) // max(1, len(first) - 1)
        in_threads(lambda a, b: _send(given, *lists, out.numpy(), a, b), batch, work)
        return out
    rows, result = x.flatten(0, 1).T.contiguous().numpy(), x.new_zeros(outputs, time * batch)
    work = len(post) * time * batch
    in_threads(lambda a, b: _add_rows(rows, *lists, batch, result.numpy(), a, b), outputs, work)
    return result.T.reshape(time, batch, outputs)


@register("sparsify_deliver", "cpu")
def deliver(x: Tensor, first: Tensor, post: Tensor, tau: Tensor, value: Tensor, currents: Tensor, slot: int) -> None:
    """Deliver one step; see :func:`delaykit_sparsify.portable.deliver`."""
    _deliver(
        x.contiguous().numpy(), first.numpy(), post.numpy(), tau.numpy(), value.detach().numpy(), currents.numpy(), slot
    )


@compiled()
def _send(x, first, post, tau, value, out, begin, end):  # type: ignore[no-untyped-def]
    """Add each spike of the batch rows ``begin .. end - 1`` to the currents that it will cause."""
    steps, _, inputs = x.shape
    for b in range(begin, end):
        for t in range(steps):
            for i in range(inputs):
                size = x[t, b, i]
                if size != 0:
                    for a in range(first[i], first[i + 1]):
                        if t + tau[a] >= steps:  # sorted by delay
                            break
                        out[t + tau[a], b, post[a]] += size * value[a]


@compiled()
def _deliver(x, first, post, tau, value, currents, slot):  # type: ignore[no-untyped-def]
    """Add each spike of one step to the ring."""
    depth = currents.shape[0]
    batch, inputs = x.shape
    for b in range(batch):
        for i in range(inputs):
            size = x[b, i]
            if size != 0:
                for a in range(first[i], first[i + 1]):
                    when = slot + tau[a]
                    if when >= depth:
                        when -= depth
                    currents[when, b, post[a]] += size * value[a]


@compiled()
def _add_rows(rows, first, post, tau, value, batch, out, begin, end):  # type: ignore[no-untyped-def]
    """Add the whole sequence of each neuron, shifted and weighed, to outputs ``begin .. end - 1``."""
    length = out.shape[1]
    for start in range(0, length, BLOCK):
        stop = min(length, start + BLOCK)
        for i in range(rows.shape[0]):
            for a in range(first[i], first[i + 1]):
                j = post[a]
                if begin <= j < end:
                    shift = np.int64(tau[a]) * batch
                    low = max(start, shift)
                    if low < stop:
                        weight, source, target = value[a], rows[i, low - shift : stop - shift], out[j, low:stop]
                        for n in range(stop - low):
                            target[n] += weight * source[n]
