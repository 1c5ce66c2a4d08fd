"""The recurrence compiled by Numba: its neuron, its connection, and the one adjoint that all backends share."""

from __future__ import annotations

from torch import Tensor

from delaykit.functional.dynamics import LIFDynamics
from delaykit.functional.recurrence.adjoint import Chip, run
from delaykit.functional.recurrence.connection.numba import PARTS
from delaykit.functional.recurrence.neuron.numba import BackwardNeuron, ForwardNeuron
from delaykit.functional.recurrence.state import Recurrence, RolloutState

CHIP = Chip(ForwardNeuron, BackwardNeuron, PARTS)


def recurrence(
    currents: Tensor, given: Recurrence, dynamics: LIFDynamics, state: RolloutState, mask: Tensor | None
) -> tuple[Tensor, Tensor, RolloutState]:
    """Run :func:`delaykit.functional.recurrence.rollout`, whose arguments these are, checked."""
    return run(CHIP, currents, given, dynamics, state, mask)
