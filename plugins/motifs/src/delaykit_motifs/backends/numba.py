"""The operators event by event, by Numba; backend ``cpu``. Dense input goes to the matrix products.

A bank is ``(pre, depth, post)``: what a spike sends is one contiguous block of ``depth * post`` numbers. Threads share
the post neurons, so no two ever write to the same place and the order of summation does not depend on their number.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from delaykit.functional.compiled import compiled, in_threads
from delaykit_motifs.backends import torch as plain
from delaykit_motifs.dynamics import MotifDynamics

EVENT_DENSITY = 0.12  # of the input, above which `depth` matrix products are faster than rows added one by one
SPARSE_TARGET = 0.03  # of the currents, below which only pairs of events are visited


def tapped_linear(x: Tensor, bank: Tensor) -> Tensor:
    """Filter; see :func:`delaykit_motifs.backends.torch.tapped_linear`."""
    if _wants_products(x):
        return plain.tapped_linear(x, bank)
    out = x.new_zeros(*x.shape[:2], bank.shape[2])
    events, rows, result = _events(x), bank.detach().contiguous().numpy(), out.numpy()
    work = len(events[0]) * bank.shape[1] * bank.shape[2]
    in_threads(lambda first, last: _send(*events, rows, result, first, last), bank.shape[2], work)
    return out


def tapped_adjoint(y: Tensor, bank: Tensor) -> Tensor:
    """Filter backwards; see :func:`delaykit_motifs.backends.torch.tapped_adjoint`.

    Every input has a gradient, spike or not, so this is dense.
    """
    return plain.tapped_adjoint(y, bank)


def tapped_correlation(x: Tensor, y: Tensor, depth: int) -> Tensor:
    """Correlate; see :func:`delaykit_motifs.backends.torch.tapped_correlation`."""
    if _wants_products(x):
        return plain.tapped_correlation(x, y, depth)
    out = x.new_zeros(x.shape[2], depth, y.shape[2])
    result, events = out.numpy(), _events(x, by_neuron=True)
    if _density(y) < SPARSE_TARGET:
        first_target, target = _listed(y)
        _pair(*events, first_target, *target, x.shape[0], result)
    else:
        given, work = y.detach().contiguous().numpy(), len(events[0]) * depth * y.shape[2]
        in_threads(lambda first, last: _collect(*events, given, result, first, last), y.shape[2], work)
    return out


def window_read(rows: Tensor, row: int, bank: Tensor) -> Tensor:
    """Give one step; see :func:`delaykit_motifs.backends.torch.window_read`."""
    window = rows[:, row - bank.shape[1] + 1 : row + 1]
    if _wants_products(window):
        return plain.window_read(rows, row, bank)
    out = rows.new_zeros(rows.shape[2], bank.shape[2])
    _gather(rows.detach().numpy(), row, bank.numpy(), out.numpy())
    return out


def free_run(
    bank: Tensor, drive: Tensor, dynamics: MotifDynamics, clamp: int, mute: Tensor, most: int
) -> tuple[Tensor, Tensor]:
    """Run each pattern by itself, in threads; see :func:`delaykit_motifs.backends.torch.free_run`."""
    (time, patterns, neurons), depth = drive.shape, bank.shape[1]
    spikes, stopped = torch.zeros_like(drive, memory_format=torch.contiguous_format), torch.full((patterns,), time)
    blocks = bank.view(neurons, depth * neurons).numpy()
    number = blocks.dtype.type
    given = (
        blocks,
        drive.contiguous().view(torch.uint8).numpy(),
        number(dynamics.theta),
        number(dynamics.beta),
        dynamics.reset == "hard",
        clamp,
        mute.numpy(),
        most,
        spikes.view(torch.uint8).numpy(),
        stopped.numpy(),
    )
    # The number of spikes is not known beforehand; a thread pays off for any real pattern.
    in_threads(lambda first, last: _run(*given, first, last), patterns, drive.numel() * depth)
    return spikes, stopped


def _wants_products(x: Tensor) -> bool:
    """Tell whether input is dense, or in a half precision that Numba has not."""
    return x.dtype not in (torch.float32, torch.float64) or _density(x) > EVENT_DENSITY


def _density(x: Tensor) -> float:
    return int(torch.count_nonzero(x)) / max(1, x.numel())


def _events(x: Tensor, by_neuron: bool = False) -> tuple[np.ndarray, ...]:
    """List what is not zero as (time, batch, neuron, size), in the order of time or of neurons."""
    x = x.detach()
    if by_neuron:  # neighbours in the list write to the same block of the bank
        neuron, time, batch = x.permute(2, 0, 1).nonzero(as_tuple=True)
    else:
        time, batch, neuron = x.nonzero(as_tuple=True)
    return tuple(t.numpy() for t in (time, batch, neuron, x[time, batch, neuron]))


def _listed(y: Tensor) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    """List what is not zero by batch row and time: (first event of each row and step, (neuron, size))."""
    time, batch, _ = y.shape
    turned = y.detach().transpose(0, 1)
    row, step, neuron = turned.nonzero(as_tuple=True)
    first = torch.searchsorted(row * time + step, torch.arange(batch * time + 1))
    return first.numpy(), (neuron.numpy(), turned[row, step, neuron].numpy())


@compiled()
def _send(time, batch, neuron, size, bank, out, first, last):  # type: ignore[no-untyped-def]
    """Add the block of each event to the currents that are to come."""
    depth = bank.shape[1]
    for e in range(len(time)):
        t, b, i, v = time[e], batch[e], neuron[e], size[e]
        for tau in range(min(depth, out.shape[0] - t)):
            source, target = bank[i, tau, first:last], out[t + tau, b, first:last]
            for j in range(last - first):
                target[j] += v * source[j]


@compiled()
def _collect(time, batch, neuron, size, y, out, first, last):  # type: ignore[no-untyped-def]
    """Add what followed each event to the event's block."""
    depth = out.shape[1]
    for e in range(len(time)):
        t, b, i, v = time[e], batch[e], neuron[e], size[e]
        for tau in range(min(depth, y.shape[0] - t)):
            source, target = y[t + tau, b, first:last], out[i, tau, first:last]
            for j in range(last - first):
                target[j] += v * source[j]


@compiled()
def _pair(time, batch, neuron, size, first_target, target, target_size, steps, out):  # type: ignore[no-untyped-def]
    """Do the same where what followed is sparse, too."""
    depth = out.shape[1]
    for e in range(len(time)):
        t, i, v = time[e], neuron[e], size[e]
        base = batch[e] * steps + t
        for tau in range(min(depth, steps - t)):
            for q in range(first_target[base + tau], first_target[base + tau + 1]):
                out[i, tau, target[q]] += v * target_size[q]


@compiled()
def _gather(rows, row, bank, out):  # type: ignore[no-untyped-def]
    """Look through the last ``depth`` steps and add the row of whatever is not zero."""
    pre, depth, post = bank.shape
    for i in range(pre):
        for tau in range(depth):
            for c in range(rows.shape[2]):
                v = rows[i, row - tau, c]
                if v != 0:
                    source, target = bank[i, tau], out[c]
                    for j in range(post):
                        target[j] += v * source[j]


@compiled()
def _run(bank, drive, theta, beta, hard, clamp, mute, most, spikes, stopped, first, last):  # type: ignore[no-untyped-def]
    """Keep a ring of the ``depth`` rows of currents to come; a spike's block is added in two contiguous parts."""
    time, _, neurons = drive.shape
    size = bank.shape[1]
    depth = size // neurons
    ring, u = np.zeros(size, bank.dtype), np.zeros(neurons, bank.dtype)
    fired, before = np.zeros(neurons, np.uint8), np.zeros(neurons, np.uint8)
    for m in range(first, last):
        ring[:] = 0
        u[:] = 0
        before[:] = 0
        total = 0
        for t in range(time):
            row = (t % depth) * neurons
            for j in range(neurons):
                if t < clamp:
                    fired[j] = drive[t, m, j]
                else:
                    rest = beta * u[j] - theta * before[j]
                    if hard:
                        rest = beta * u[j] * (1 - before[j])
                    u[j] = rest + ring[row + j]
                    fired[j] = u[j] >= theta or drive[t, m, j] != 0
                ring[row + j] = 0
            after = row + neurons  # row of the next step: tau = 0 arrives there
            for j in range(neurons):
                if mute[j]:
                    fired[j] = 0
                before[j] = fired[j] if t >= clamp else 0
                if fired[j]:
                    spikes[t, m, j] = 1
                    total += t >= clamp
                    for k in range(size - after):
                        ring[after + k] += bank[j, k]
                    for k in range(after):
                        ring[k] += bank[j, size - after + k]
            if total > most:
                stopped[m] = t
                break
