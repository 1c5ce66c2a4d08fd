"""The recurrence as its equations stand: every step sums all past spikes through the dense response; plain autograd."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from delaykit.functional.dynamics import LIFDynamics
from delaykit.functional.recurrence.connection.base import Fading, RecurrentConnection
from delaykit.functional.recurrence.state import Recurrence, RolloutState, check
from delaykit.functional.taps import Taps
from delaykit.functional.tents import OwnTents, Tents


def rollout_generic(
    step: Callable[[Tensor, Tensor], Tensor],
    currents: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    taps: Taps | Tents | OwnTents | None,
    recurrent_mask: Tensor | None = None,
) -> Tensor:
    """Run any neuron with a delayed recurrent connection over a sequence, step by step and by plain autograd.

    ``s_t = step(currents_t + mask (bias + sum_j sum_tau W_ij h_ij(tau) s_{t-1-tau,j}), s_{t-1})``

    Args:
        step: ``(drive (batch, post), spikes of the step before (batch, post)) -> spikes (batch, post)``; it keeps its
            other states itself.
        currents: external drive ``(time, batch, post)``.
        weight: as for :func:`rollout`, as the other arguments.
        bias: ``(post,)`` or None.
        taps: delays or None.
        recurrent_mask: ``(batch, post)`` or None.

    Returns:
        Spikes ``(time, batch, post)``.

    Raises:
        ShapeError: a tensor does not fit the currents.

    Example:
        >>> spikes = rollout_generic(lambda drive, last: (drive > 0.5).float(), torch.ones(3, 1, 2), None, None, None)
        >>> spikes.shape
        torch.Size([3, 1, 2])
    """
    check(currents, weight, bias, taps, None, recurrent_mask)
    response = None if weight is None else _response(weight, taps, currents)
    spikes = [torch.zeros_like(currents[0])]
    for drive in currents:
        spikes.append(step(_driven(drive, spikes, response, bias, recurrent_mask), spikes[-1]))
    return torch.stack(spikes[1:])


def recurrence(
    currents: Tensor, given: Recurrence, dynamics: LIFDynamics, state: RolloutState, mask: Tensor | None
) -> tuple[Tensor, Tensor, RolloutState]:
    """Run :func:`delaykit.functional.recurrence.rollout`, whose arguments these are, by :meth:`LIFDynamics.step`."""
    weight, bias, through = given
    assert not isinstance(through, RecurrentConnection)
    response = None if weight is None else _response(weight, through, currents)
    first, synapse, membrane = state.tensors(dynamics, currents)
    spikes = [first]
    membranes = []
    for current in currents:
        drive = _driven(current, spikes, response, bias, mask)
        fired, (synapse, membrane) = dynamics.step(drive, (synapse, membrane))
        spikes.append(fired)
        membranes.append(membrane)
    last = None if dynamics.synapse_decay is None else synapse
    return torch.stack(spikes[1:]), torch.stack(membranes), RolloutState(spikes[-1], last, membrane)


def _response(weight: Tensor, through: Taps | Tents | OwnTents | Fading | None, currents: Tensor) -> Tensor:
    """Write out ``K (post, pre, tau)``, as many steps as the sequence has."""
    weight, depth = weight.to(currents), len(currents)
    if through is None:
        return weight.unsqueeze(-1)
    if isinstance(through, Fading):
        decay, beyond = through.decay.to(currents), through.beyond.to(currents)
        return torch.stack([weight, *(beyond * decay**tau for tau in range(depth - 1))], -1)
    taps = through.taps() if isinstance(through, (Tents, OwnTents)) else through
    depth = min(int(taps.index.max()) + 1, depth)
    return weight.unsqueeze(-1) * taps.response(depth).to(weight)


def _driven(
    drive: Tensor, spikes: list[Tensor], response: Tensor | None, bias: Tensor | None, mask: Tensor | None
) -> Tensor:
    """Add to the drive what the spikes so far bring through the dense response; the last of them is tau = 0."""
    if response is None:
        return drive
    window = torch.stack(spikes[: -response.shape[-1] - 1 : -1])  # (tau, batch, pre)
    current = torch.einsum("tbj,ijt->bi", window, response[..., : len(window)])
    current = current if bias is None else current + bias.to(current)
    return drive + (current if mask is None else mask.to(current) * current)
