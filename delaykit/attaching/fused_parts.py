"""What a neuron is to a fused run, besides its dynamics."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from delaykit.attaching.neuron_mixins import synapses_of
from delaykit.attaching.wiring import wiring_of
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

    @classmethod
    def of_layer(cls, layer: nn.Module) -> FusedParts | None:
        """Describe a layer that turns a neuron's spikes into its own current; None where it only runs step by step.

        An ``nn.Linear``, wrapped or bare. Or one that says itself how a rollout runs it, by a method ``recurrence()``
        that returns a :class:`~delaykit.functional.recurrence.RecurrentConnection`; its ``bias`` is added to that.

        Args:
            layer: ``(batch, post) -> (batch, post)``.

        Example:
            >>> FusedParts.of_layer(nn.Linear(3, 3)).recurrence.weight.shape, FusedParts.of_layer(nn.Identity())
            (torch.Size([3, 3]), None)
        """
        own: Any = getattr(
            layer, "recurrence", getattr(layer, "rollout_connection", None)
        )  # the latter its former name
        if callable(own) and not isinstance(own, nn.Module):
            return cls(Recurrence(None, getattr(layer, "bias", None), own()))
        known = wiring_of(layer) is not None or type(layer).forward is nn.Linear.forward
        if not isinstance(layer, nn.Linear) or not known:
            return None  # nobody knows what a subclass does with its weight
        return cls.of(layer.weight, layer.bias, synapses_of(layer).get(""))
