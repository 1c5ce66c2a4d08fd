"""The judge of the rollout: a current for every synapse, step after step, and plain autograd."""

from __future__ import annotations

import torch
from torch import Tensor

from delaykit_hetsyn.reset_currents import Jumps
from delaykit_hetsyn.surrogates import Surrogate


def rollout(
    drive: Tensor, weight: Tensor | None, decay: Tensor | None, jumps: Jumps, surrogate: Surrogate, threshold: float,
    detach_reset: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Run a layer; see :func:`delaykit_hetsyn.rollout.rollout`, whose arguments these are."""
    _, batch, post = drive.shape
    synapses, own = drive.new_zeros(batch, post, post), drive.new_zeros(batch, len(jumps.wipes), post)
    fired = membrane = drive.new_zeros(batch, post)
    spikes, membranes = [], []
    for current in drive:
        if weight is not None and decay is not None:
            synapses = decay * synapses + weight * fired[:, None, :]
        early = fired.detach() if detach_reset else fired
        jump = jumps.amplitude + jumps.wipes[:, None] * jumps.decay * membrane[:, None]
        own = jumps.decay * own + jump * early[:, None]
        membrane = current + synapses.sum(2) - own.sum(1)
        fired = surrogate(membrane - threshold)
        spikes.append(fired)
        membranes.append(membrane)
    return torch.stack(spikes), torch.stack(membranes)
