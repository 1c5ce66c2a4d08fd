"""What a neuron is to a fused run, besides its dynamics."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from torch import Tensor

from delaykit.functional.recurrence.state import Recurrence
from delaykit.interfaces import Delay
from delaykit.synapse import Synapse


@dataclasses.dataclass(frozen=True)
class FusedParts:
    """What :func:`delaykit.rollout` needs of a neuron besides its dynamics.

    Args:
        recurrence: its recurrent connection; without a weight where it has none.
        delay: of that connection, whose dropout masks its current; or None.
        drive: turns the input ``(time, batch, pre)`` into currents ``(time, batch, post)``; None: it is currents.
    """

    recurrence: Recurrence = Recurrence()
    delay: Delay | None = None
    drive: Callable[[Tensor], Tensor] | None = None

    @classmethod
    def of(
        cls,
        weight: Tensor,
        bias: Tensor | None,
        synapse: Synapse | None,
        drive: Callable[[Tensor], Tensor] | None = None,
    ) -> FusedParts | None:
        """Describe a recurrent weight behind ``synapse``, or bare; None where it only runs step by step."""
        if synapse is None:
            return cls(Recurrence(weight, bias), None, drive)
        recurrence = synapse.recurrence(weight, bias)
        return None if recurrence is None else cls(recurrence, synapse.delay, drive)
