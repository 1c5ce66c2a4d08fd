"""The recurrence as its equations stand: every step sums all past spikes through the dense response; plain autograd."""

from __future__ import annotations

import torch
from torch import Tensor

from delaykit.functional.dynamics import LIFDynamics
from delaykit.functional.recurrence.connection.base import RecurrentConnection
from delaykit.functional.recurrence.dense_responses import dense_response, driven
from delaykit.functional.recurrence.state import Recurrence, RolloutState


def recurrence(
    currents: Tensor, given: Recurrence, dynamics: LIFDynamics, state: RolloutState, mask: Tensor | None
) -> tuple[Tensor, Tensor, RolloutState]:
    """Run :func:`delaykit.functional.recurrence.rollout`, whose arguments these are, by :meth:`LIFDynamics.step`."""
    weight, bias, through = given
    assert not isinstance(through, RecurrentConnection)
    response = None if weight is None else dense_response(weight, through, currents)
    first, synapse, membrane = state.tensors(dynamics, currents)
    spikes = [first]
    membranes = []
    for current in currents:
        drive = driven(current, spikes, response, bias, mask)
        fired, (synapse, membrane) = dynamics.step(drive, (synapse, membrane))
        spikes.append(fired)
        membranes.append(membrane)
    last = None if dynamics.synapse_decay is None else synapse
    return torch.stack(spikes[1:]), torch.stack(membranes), RolloutState(spikes[-1], last, membrane)
