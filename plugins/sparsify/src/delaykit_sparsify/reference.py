"""The judge: one arrival after the other, and the neuron's own steps; backend ``reference``."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from delaykit.functional.dynamics import LIFDynamics


def sparse_filter(x: Tensor, first: Tensor, place: Tensor, value: Tensor, outputs: int) -> Tensor:
    """Deliver all spikes; see :func:`delaykit_sparsify.torch.sparse_filter`."""
    time, batch, _ = x.shape
    out = x.new_zeros(time, batch, outputs)
    for i, j, tau, weight in _synapses(first, place, value, outputs):
        for t in range(tau, time):
            out[t, :, j] += weight * x[t - tau, :, i]
    return out


def deliver(
    first: Tensor, place: Tensor, value: Tensor, currents: Tensor, bias: Tensor | None
) -> Callable[[Tensor, int], Tensor]:
    """Make the delivery of a step; see :func:`delaykit_sparsify.torch.deliver`."""
    _, depth, post = currents.shape

    def run(x: Tensor, slot: int) -> Tensor:
        for i, j, tau, weight in _synapses(first, place, value, post):
            currents[:, (slot + tau) % depth, j] += weight * x[:, i]
        out = currents[:, slot].clone()
        currents[:, slot] = 0
        return out if bias is None else out + bias

    return run


def rollout(
    currents: Tensor, first: Tensor, place: Tensor, value: Tensor, bias: Tensor, mask: Tensor, p: Tensor,
    rest: Tensor, dynamics: LIFDynamics,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Run the neuron's own steps; see :func:`delaykit_sparsify.rollout.rollout`.

    The packed numbers ``p`` are those of ``dynamics``, which is what is asked here.
    """
    state = torch.zeros_like(rest), rest
    spikes: list[Tensor] = []
    membranes: list[Tensor] = []
    synapses = list(_synapses(first, place, value, currents.shape[2]))
    for t, drive in enumerate(currents):
        recurrent = torch.zeros_like(drive)
        for i, j, tau, weight in synapses:
            if tau < t:  # a spike of the step before arrives with tau = 0
                recurrent[:, j] += weight * spikes[t - 1 - tau][:, i]
        fired, state = dynamics.step(drive + mask * (recurrent + bias), state)
        spikes.append(fired)
        membranes.append(state[1])
    return torch.stack(spikes), torch.stack(membranes)


def _synapses(first: Tensor, place: Tensor, value: Tensor, outputs: int) -> Iterator[tuple[int, int, int, Tensor]]:
    """Yield presynaptic neuron, postsynaptic neuron, delay and weight of every arrival."""
    for i in range(len(first) - 1):
        for a in range(int(first[i]), int(first[i + 1])):
            tau, j = divmod(int(place[a]), outputs)
            yield i, j, tau, value[a]
