"""Input spikes with all that is awkward about them, and what a backend makes of them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from delaykit import backend
from delaykit_timing import TimingDynamics, spike_times

DELAYS = {"none": None, "layer": (1, 1), "axonal": (1, 6), "dendritic": (4, 1), "synaptic": (4, 6)}
RATIOS = (0.5, 1.0, 1.5, 2.0, 3.0)


def problem(seed: int, delay: str = "none", batch: int = 3, slots: int = 16, pre: int = 6, post: int = 4):
    """Random input with ties, an empty slot here and there, and one silent sample."""
    g = torch.Generator().manual_seed(seed)
    times = torch.rand(batch, slots, generator=g, dtype=torch.float64).sort(1).values
    times[0, -4:] = math.inf
    times[1, 5] = times[1, 4]
    times[1, 10:13] = times[1, 10]
    times[2:] = math.inf
    neurons = torch.randint(0, pre, (batch, slots), generator=g)
    weight = 2.0 * torch.randn(post, pre, generator=g, dtype=torch.float64) + 1.5
    shape = DELAYS[delay]
    delays = None if shape is None else torch.rand(shape, generator=g, dtype=torch.float64) * 0.3
    return times, neurons, weight, delays


def ordered(out) -> tuple[Tensor, Tensor]:
    """Spike times by sample, neuron and time; and whose they are."""
    owner = out.sample * 1000 + out.neuron
    order = torch.argsort(out.when.detach(), stable=True)
    order = order[torch.argsort(owner[order], stable=True)]
    return out.when[order], owner[order]


def solve(given, dynamics: TimingDynamics, name: str):
    """Spikes, owners, potentials and gradients of a fixed random loss in one backend."""
    times, neurons, weight, delays = given
    leaves = [x.clone().requires_grad_() for x in (times, weight, delays) if x is not None]
    with backend(name):
        out = spike_times(leaves[0], neurons, leaves[1], dynamics, leaves[2] if len(leaves) > 2 else None)
        when, owner = ordered(out)
        g = torch.Generator().manual_seed(99)
        loss = (torch.randn(len(when), generator=g, dtype=torch.float64) * when).sum()
        loss = loss + (torch.randn(out.potential.shape, generator=g, dtype=torch.float64) * out.potential).sum()
        return when.detach(), owner, out.potential.detach(), torch.autograd.grad(loss, leaves)
