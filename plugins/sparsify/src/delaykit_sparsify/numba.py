"""The operators for the CPU, by Numba: backend ``cpu``. Threads share the batch or the outputs, never a number."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from delaykit.functional.compiled import compiled, in_threads

EVENT_DENSITY = 0.15  # of the input, above which whole rows are added, eight numbers at a time
STEPS_LOOKED_AT = 4  # to estimate it
BLOCK = 512  # numbers of a row handled before the next row, so that all rows stay in the cache


def sparse_filter(x: Tensor, first: Tensor, place: Tensor, value: Tensor, outputs: int) -> Tensor:
    """Deliver all spikes; see :func:`delaykit_sparsify.torch.sparse_filter`."""
    time, batch, _ = x.shape
    lists = first.numpy(), place.numpy(), value.numpy()
    looked_at = x[:: max(1, time // STEPS_LOOKED_AT)]
    density = int(torch.count_nonzero(looked_at)) / max(1, looked_at.numel())
    if density <= EVENT_DENSITY:
        out, given = x.new_zeros(batch, time * outputs), x.contiguous().numpy()
        depth = int(place.max()) // outputs + 1 if len(place) else 1
        work = int(density * x.numel()) * len(place) // max(1, len(first) - 1)
        in_threads(lambda a, b: _send(given, *lists, outputs, depth, out.numpy(), a, b), batch, work)
        return out.view(batch, time, outputs).transpose(0, 1)
    rows, result = x.flatten(0, 1).T.contiguous().numpy(), x.new_zeros(outputs, time * batch)
    work = len(place) * time * batch
    in_threads(lambda a, b: _add_rows(rows, *lists, batch, result.numpy(), a, b), outputs, work)
    return result.T.reshape(time, batch, outputs)


def deliver(
    first: Tensor, place: Tensor, value: Tensor, currents: Tensor, bias: Tensor | None
) -> Callable[[Tensor, int], Tensor]:
    """Make the delivery of a step; see :func:`delaykit_sparsify.torch.deliver`."""
    lists, coming = (first.numpy(), place.numpy(), value.numpy()), currents.flatten(1).numpy()
    shape = currents.shape[0], currents.shape[2]
    always = (value.new_zeros(shape[1]) if bias is None else bias).numpy()

    def run(x: Tensor, slot: int) -> Tensor:
        out = x.new_empty(shape)
        _deliver(x.contiguous().numpy(), *lists, coming, slot, always, out.numpy())
        return out

    return run


@compiled()
def _send(x, first, place, value, outputs, depth, out, begin, end):  # type: ignore[no-untyped-def]
    """Add each spike of the batch rows ``begin .. end - 1`` to the currents that it will cause."""
    steps, _, inputs = x.shape
    named = np.empty(inputs + 1, np.uint32)
    for b in range(begin, end):
        for t in range(steps):
            row, later, used = x[t, b], out[b, t * outputs :], np.uintp(0)
            for n in range(inputs):
                named[used] = n
                used += np.uintp(row[n] != 0)
            length = len(later) if t + depth > steps else depth * outputs
            for e in range(used):
                i = np.uintp(named[np.uintp(e)])
                size, start, stop = row[i], np.uintp(first[i]), np.uintp(first[i + np.uintp(1)])
                while stop > start and place[stop - np.uintp(1)] >= length:  # sorted by delay
                    stop -= np.uintp(1)
                for a in range(start, stop):
                    later[np.uintp(place[a])] += size * value[a]


@compiled()
def _deliver(x, first, place, value, currents, slot, bias, out):  # type: ignore[no-untyped-def]
    """Add each spike of one step to the ring ``currents (batch, depth * post)``, and empty its slot into ``out``."""
    batch, inputs = x.shape
    outputs = out.shape[1]
    length, now = np.uintp(currents.shape[1]), np.uintp(slot * outputs)
    named = np.empty(inputs + 1, np.uint32)
    for b in range(batch):
        row, ring, arrived, used = x[b], currents[b], out[b], np.uintp(0)
        for n in range(inputs):
            named[used] = n
            used += np.uintp(row[n] != 0)
        for e in range(used):
            i = np.uintp(named[np.uintp(e)])
            size, a, stop = row[i], np.uintp(first[i]), np.uintp(first[i + np.uintp(1)])
            while a < stop:
                spot = now + np.uintp(place[a])
                spot -= length if spot >= length else np.uintp(0)
                ring[spot] += size * value[a]
                a += np.uintp(1)
        here = ring[slot * outputs : (slot + 1) * outputs]
        for j in range(outputs):
            arrived[j] = here[j] + bias[j]
        for j in range(outputs):
            here[j] = 0


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
