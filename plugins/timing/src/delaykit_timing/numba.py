"""Backend ``cpu`` of the operator: tiles of neurons and samples, shared out over threads."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from delaykit.functional.compiled import in_threads
from delaykit_timing import kernels, own_order_kernels
from delaykit_timing import torch as plain
from delaykit_timing.dynamics import TimingDynamics
from delaykit_timing.spikes import InputSpikes, Record

BLOCK = 64  # neurons of a tile: their state fits the cache and fills vectors
LEAST_TILES = 4  # few neurons are shared out by samples as well
NO_LIMIT = np.iinfo(np.int64).max


def run(arrivals: InputSpikes, weight: Tensor, dynamics: TimingDynamics) -> tuple[Record, Tensor]:
    """Find all spikes; see :func:`delaykit_timing.torch.run`."""
    if not len(weight):
        return plain.run(arrivals, weight, dynamics)
    tiles = _tiles(arrivals.batch, len(weight))
    potential = np.empty((arrivals.batch, len(weight)))
    limit = NO_LIMIT if dynamics.max_spikes is None else dynamics.max_spikes
    closed = dynamics.tau_synapse == 2 * dynamics.tau_v
    rest = (dynamics.tau_synapse, dynamics.tau_v, dynamics.threshold, dynamics.end, limit, closed, potential)
    found: list[tuple[np.ndarray, ...]] = [()] * len(tiles)
    given, matrices = _shared(arrivals), _matrices(arrivals, weight)
    tile_kernel = kernels.forward_tile if arrivals.delays is None else own_order_kernels.forward_tile

    def work(first: int, last: int) -> None:
        for n in range(first, last):
            found[n] = tile_kernel(*given, *matrices, *tiles[n], *rest)

    in_threads(work, len(tiles), arrivals.times.numel() * len(weight))
    return _record(found, tiles), torch.from_numpy(potential)


def gradients(
    arrivals: InputSpikes,
    weight: Tensor,
    dynamics: TimingDynamics,
    record: Record,
    grad_when: Tensor,
    grad_potential: Tensor,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Go back from spikes and potentials; see :func:`delaykit_timing.torch.gradients`."""
    if not len(weight):
        return plain.gradients(arrivals, weight, dynamics, record, grad_when, grad_potential)
    tiles, post = _tiles(arrivals.batch, len(weight)), len(weight)
    given, matrices = _shared(arrivals), _matrices(arrivals, weight)
    floor = dynamics.slope_floor * dynamics.threshold / dynamics.tau_v
    rest = (dynamics.tau_synapse, dynamics.tau_v, dynamics.threshold, dynamics.end, floor)
    fields = [getattr(record, name).numpy() for name in ("interval", "neuron", "when", "strength")]
    grads, grad_v, begin = grad_when.contiguous().numpy(), grad_potential.contiguous().numpy(), record.begin
    chunks = [samples for first, _, samples in tiles if first == 0]
    grad_weight = np.zeros((len(chunks), *matrices[0].shape))
    grad_delays = None if arrivals.delays is None else np.zeros((len(chunks), post, weight.shape[1]))
    grad_times = np.zeros((len(tiles) // len(chunks), *arrivals.times.shape))

    def work(first: int, last: int) -> None:
        for n in range(first, last):
            lowest, _, samples = tiles[n]
            chunk = chunks.index(samples)
            begin_n = begin[n]
            spikes = slice(begin_n[0], begin_n[-1])
            own = [values[spikes] for values in (*fields, grads)]
            common = (*given, *matrices, *tiles[n], *rest, begin_n - begin_n[0], *own, grad_v)
            if grad_delays is None:
                kernels.backward_tile(*common, grad_weight[chunk], grad_times[lowest // BLOCK])
            else:
                targets = (grad_weight[chunk], grad_delays[chunk], grad_times[lowest // BLOCK])
                own_order_kernels.backward_tile(*common, *targets)

    in_threads(work, len(tiles), arrivals.times.numel() * post)
    weights = torch.from_numpy(grad_weight.sum(0))
    delays = None if grad_delays is None else torch.from_numpy(grad_delays.sum(0))
    return torch.from_numpy(grad_times.sum(0)), weights.T if grad_delays is None else weights, delays


def _tiles(batch: int, post: int) -> list[tuple[int, int, tuple[int, int]]]:
    """Cut (neurons, samples) the same way for any number of threads, so that sums have one order."""
    blocks = [(first, min(post, first + BLOCK)) for first in range(0, post, BLOCK)]
    chunks = min(max(1, batch), -(-LEAST_TILES // len(blocks))) if blocks else 1
    edges = [batch * n // chunks for n in range(chunks + 1)]
    ranges = list(zip(edges, edges[1:], strict=False))
    return [(first, last, samples) for first, last in blocks for samples in ranges]


def _shared(arrivals: InputSpikes) -> tuple[np.ndarray, ...]:
    times, neurons, counts = (x.detach().contiguous() for x in (arrivals.times, arrivals.neurons, arrivals.counts))
    return times.double().numpy(), neurons.numpy(), counts.numpy()


def _matrices(arrivals: InputSpikes, weight: Tensor) -> tuple[np.ndarray, ...]:
    """The weight as (pre, post), so that neurons lie side by side; with delays both as (post, pre)."""
    if arrivals.delays is None:
        return (weight.detach().double().T.contiguous().numpy(),)
    return tuple(x.detach().double().contiguous().numpy() for x in (weight, arrivals.delays))


def _record(found: list[tuple[np.ndarray, ...]], tiles: list[tuple[int, int, tuple[int, int]]]) -> Record:
    begin, total, samples = [], 0, []
    for (edges, *_), (_, _, (first, last)) in zip(found, tiles, strict=True):
        begin.append(edges + total)
        total += int(edges[-1])
        samples.append(np.repeat(np.arange(first, last), np.diff(edges)))
    interval, neuron, when, strength = (
        torch.from_numpy(np.concatenate([tile[k] for tile in found])) for k in (1, 2, 3, 4)
    )
    return Record(torch.from_numpy(np.concatenate(samples)), interval, neuron, when, strength, begin)
