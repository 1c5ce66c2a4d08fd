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
def sparse_filter(x: Tensor, first: Tensor, place: Tensor, value: Tensor, outputs: int) -> Tensor:
    """Deliver all spikes; see :func:`delaykit_sparsify.portable.sparse_filter`."""
    time, batch, _ = x.shape
    lists = first.numpy(), place.numpy(), value.numpy()
    used = int(torch.count_nonzero(x))
    if used <= EVENT_DENSITY * x.numel():
        out, given = x.new_zeros(batch, time * outputs), x.contiguous().numpy()
        work = used * len(place) // max(1, len(first) - 1)
        in_threads(lambda a, b: _send(given, *lists, outputs, out.numpy(), a, b), batch, work)
        return out.view(batch, time, outputs).transpose(0, 1)
    rows, result = x.flatten(0, 1).T.contiguous().numpy(), x.new_zeros(outputs, time * batch)
    work = len(place) * time * batch
    in_threads(lambda a, b: _add_rows(rows, *lists, batch, result.numpy(), a, b), outputs, work)
    return result.T.reshape(time, batch, outputs)


@register("sparsify_deliver", "cpu")
def deliver(x: Tensor, first: Tensor, place: Tensor, value: Tensor, currents: Tensor, slot: int) -> Tensor:
    """Deliver one step; see :func:`delaykit_sparsify.portable.deliver`."""
    out = torch.empty_like(currents[:, 0], memory_format=torch.contiguous_format)
    lists = first.numpy(), place.numpy(), value.numpy()
    _deliver(x.contiguous().numpy(), *lists, currents.view(len(currents), -1).numpy(), slot, out.numpy())
    return out


@compiled()
def _send(x, first, place, value, outputs, out, begin, end):  # type: ignore[no-untyped-def]
    """Add each spike of the batch rows ``begin .. end - 1`` to the currents that it will cause."""
    steps, _, inputs = x.shape
    for b in range(begin, end):
        target = out[b]
        for t in range(steps):
            for i in range(inputs):
                size = x[t, b, i]
                if size != 0:
                    for a in range(first[i], first[i + 1]):
                        where = t * outputs + place[a]
                        if where >= target.shape[0]:  # sorted by delay
                            break
                        target[where] += size * value[a]


@compiled()
def _deliver(x, first, place, value, currents, slot, out):  # type: ignore[no-untyped-def]
    """Add each spike of one step to the ring ``currents (batch, depth * post)``, and empty its slot into ``out``."""
    batch, inputs = x.shape
    length, outputs = currents.shape[1], out.shape[1]
    now = slot * outputs
    for b in range(batch):
        target = currents[b]
        for i in range(inputs):
            size = x[b, i]
            if size != 0:
                for a in range(first[i], first[i + 1]):
                    where = now + place[a]
                    if where >= length:
                        where -= length
                    target[where] += size * value[a]
        for j in range(outputs):
            out[b, j] = target[now + j]
            target[now + j] = 0


@compiled()
def _add_rows(rows, first, place, value, batch, out, begin, end):  # type: ignore[no-untyped-def]
    """Add the whole sequence of each neuron, shifted and weighed, to outputs ``begin .. end - 1``."""
    outputs, length = out.shape
    for start in range(0, length, BLOCK):
        stop = min(length, start + BLOCK)
        for i in range(rows.shape[0]):
            for a in range(first[i], first[i + 1]):
                j = place[a] % outputs
                if begin <= j < end:
                    shift = np.int64(place[a] // outputs) * batch
                    low = max(start, shift)
                    if low < stop:
                        weight, source, target = value[a], rows[i, low - shift : stop - shift], out[j, low:stop]
                        for n in range(stop - low):
                            target[n] += weight * source[n]
