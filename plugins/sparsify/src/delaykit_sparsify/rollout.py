"""A whole rollout of sparse recurrent synapses at once, for inference: rows of the batch one after the other.

A row needs the currents that are still to come, ``depth * post`` numbers, and the state of its neurons, which stay in
the first cache for the whole sequence; the dense rollout goes step by step because of its products.

The kernel fires where ``u > threshold``. Where the surrogate is not known to do the same, each block of rows is shown
to it, and it must find exactly these spikes; by induction over the steps they are then its own. If it does not, nothing
is returned.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import Tensor

from delaykit.functional.compiled import compiled, in_threads
from delaykit.functional.dispatch import implementation_of
from delaykit.functional.dynamics import PARAMETERS, LIFDynamics
from delaykit.functional.recurrence.neuron import THRESHOLD, Switches, commit_row, fire, integrate_row, pack
from delaykit_sparsify.sparse import SparseSynapses

BLOCK = 2  # rows whose spikes are checked at a time, while they are in the second cache
TURN = 5  # times the longest delay: steps after which the currents to come are moved back to the beginning


def rollout(
    arrivals: SparseSynapses, currents: Tensor, bias: Tensor | None, mask: Tensor | None, dynamics: LIFDynamics
) -> tuple[Tensor, Tensor] | None:
    """Run neurons with sparse recurrent synapses over a whole sequence from rest.

    Args:
        arrivals: the recurrent synapses.
        currents: external drive ``(time, batch, post)``.
        bias: ``(post,)``, part of the recurrent current, or None.
        mask: ``(batch, post)``, factor on the recurrent current, or None.
        dynamics: the neuron.

    Returns:
        Spikes and membrane, both ``(time, batch, post)``; or None where it has to be done step by step: a gradient is
        wanted, no compiled kernel fits, the neuron looks at its spikes twice a step, or it does not fire where
        ``u > threshold``.
    """
    steps, batch, neurons = currents.shape
    fits = steps > 0 and neurons == arrivals.outputs and currents.dtype == arrivals.value.dtype
    if not fits or (mask is not None and mask.shape != (batch, neurons)) or dynamics.reset_when == "both":
        return None
    numbers = dynamics.parameters(currents)
    learning = [x for x in (currents, bias, mask, *numbers.values()) if x is not None and x.requires_grad]
    if not dynamics.spiking or (learning and torch.is_grad_enabled()):
        return None
    with torch.no_grad(), torch.autocast(currents.device.type, enabled=False):
        p = pack(dynamics, tuple(numbers[name] for name in PARAMETERS))
        _, rest = dynamics.start(currents[0])
        factor = torch.ones_like(rest) if mask is None else mask.to(rest)
        shift = p.new_zeros(neurons) if bias is None else bias.detach().to(p)
        run = implementation_of("sparsify_rollout", currents.device)
        found: tuple[Tensor, Tensor] | None = run(currents.detach(), *arrivals[:3], shift, factor, p, rest, dynamics)
        return found


def step_by_step(*arguments: object) -> None:
    """Leave it to the step-by-step rollout, which is as fast in plain torch."""


def by_rows(currents: Tensor, first: Tensor, place: Tensor, value: Tensor, bias: Tensor, mask: Tensor, p: Tensor,
            rest: Tensor, dynamics: LIFDynamics) -> tuple[Tensor, Tensor] | None:  # fmt: skip
    """Run the rows of the batch, in threads; see :func:`rollout`."""
    steps, batch, neurons = currents.shape
    spikes, membrane = currents.new_empty(2, steps, batch, neurons)
    before = torch.zeros_like(rest)
    if dynamics.delayed_reset:
        before = fire(dynamics, rest - p[THRESHOLD])
    depth = int(place.max()) // neurons + 1 if len(place) else 1
    switches = dataclasses.astuple(Switches.of(dynamics))[:3]
    flags = dynamics.synapse_decay is not None, dynamics.delayed_reset, dynamics.immediate_reset
    given = tuple(x.contiguous().numpy() for x in (currents, first, place, value, bias, mask, p, rest, before))
    out = spikes.numpy(), membrane.numpy()
    agreed = []

    def work(begin: int, end: int) -> None:
        block = max(1, end - begin) if dynamics.heaviside else BLOCK
        shifted = currents.new_empty(1 if dynamics.heaviside else steps, block, neurons)
        for start in range(begin, end, block):
            rows = min(block, end - start)
            _run(start, rows, depth, *given, switches, *flags, *out, shifted.numpy())
            if not dynamics.heaviside:
                wanted = fire(dynamics, shifted[:, :rows])
                agreed.append(_equal(wanted.contiguous().numpy(), out[0], start))

    in_threads(work, batch, currents.numel() * 8)
    return (spikes, membrane) if all(agreed) else None


@compiled(fastmath=(), parts=(integrate_row, commit_row))
def _run(start, rows, depth, drive, first, place, value, bias, mask, p, rest, before, switches, synaptic, delayed,
         immediate, spikes, membrane, shifted):  # fmt: skip
    """Run ``rows`` rows from ``start`` on; ``shifted`` gets u - threshold, if it has room for all steps."""
    steps, _, neurons = drive.shape
    every = len(shifted) == steps
    zero_old, wipe, zero_now = switches
    turn, window = min(steps, TURN * depth), depth * neurons
    coming = np.zeros(turn * neurons + window, value.dtype)
    fires, named = np.empty(neurons, np.uint8), np.empty(neurons + 1, np.uint32)
    flow, left, v, unreset = np.empty_like(bias), np.empty_like(bias), np.empty_like(bias), np.empty_like(bias)
    for row in range(rows):
        b, used = start + row, np.uintp(0)
        factor, early = mask[b], before[b].copy()
        coming[:] = 0
        left[:] = 0
        for n in range(neurons):  # not v[:] = rest[b]: see delaykit.functional.compiled
            v[n] = rest[b, n]
        for t in range(steps):
            slot = t % turn
            if slot == 0 and t > 0:
                for n in range(window):
                    coming[n] = coming[turn * neurons + n]
                coming[window:] = 0
            later = coming[slot * neurons : slot * neurons + window]
            for e in range(used):
                i = np.uintp(named[np.uintp(e)])
                a, stop = np.uintp(first[i]), np.uintp(first[i + np.uintp(1)])
                while a < stop:
                    later[np.uintp(place[a])] += value[a]
                    a += np.uintp(1)
            over, kept = shifted[t if every else 0, row], membrane[t, b]
            u = unreset if immediate else kept
            integrate_row(
                drive[t, b], True, later, factor, True, p, bias, synaptic, zero_old, delayed, wipe, early, left, v,
                flow, u, over,
            )  # fmt: skip
            commit_row(over, True, p, immediate, zero_now, delayed, early, u, v, kept, spikes[t, b])
            for n in range(neurons):
                fires[n] = over[n] > 0
            used = np.uintp(0)
            for n in range(neurons):
                named[used] = n
                used += np.uintp(fires[n])


@compiled(fastmath=())
def _equal(wanted, spikes, start):
    """Compare rows of spikes ``(time, batch, post)`` from ``start`` on."""
    steps, rows, neurons = wanted.shape
    different = 0
    for t in range(steps):
        for row in range(rows):
            one, other = wanted[t, row], spikes[t, start + row]
            for n in range(neurons):
                different += one[n] != other[n]
    return different == 0
