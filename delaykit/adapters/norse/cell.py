"""Norse's recurrent cells: weights that are used by ``torch.nn.functional.linear`` inside, and states that begin."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from delaykit.attaching.attachment import Attachment
from delaykit.attaching.connection.calls import step_connection
from delaykit.attaching.history.connection_history import History
from delaykit.attaching.neuron_mixins import CarriedNeuron
from delaykit.synapse import Product, Synapse

WEIGHTS = {"input": "input_weights", "recurrent": "recurrent_weights"}


class NorseCell(CarriedNeuron):
    """Mixin for a cell or sequence module that holds weights.

    While it runs, a wrapped weight is replaced by a :class:`DelayedWeight`, so Norse's own equations stay in charge.
    """

    def forward(self, input_tensor: Tensor, state: Any = None) -> Any:  # type: ignore[override]
        """Step the cell with the histories that ride in ``state``; return (output, state that carries them)."""
        return super().forward(input_tensor, state)

    def _dk_weight(self, slot: str) -> Any:
        own = self._parameters.get(WEIGHTS[slot], self.__dict__.get(WEIGHTS[slot]))  # type: ignore[attr-defined]
        if own is None:  # LIFCell and others have no weights: hasattr must keep saying so
            raise AttributeError(WEIGHTS[slot])
        attachment, carried = self._dk.sites.get(slot), self._dk.carried
        running = None if carried is None else carried.running
        if running is None or attachment is None or attachment.off:
            return own
        return DelayedWeight(own, self._modules["dk"][slot], attachment, running[slot])  # type: ignore[attr-defined]

    @property
    def input_weights(self) -> Any:
        """Return the input weight; while the cell runs, its delayed stand-in."""
        return self._dk_weight("input")

    @input_weights.setter
    def input_weights(self, value: Any) -> None:
        self.__dict__["input_weights"] = value

    @property
    def recurrent_weights(self) -> Any:
        """Return the recurrent weight; while the cell runs, its delayed stand-in."""
        return self._dk_weight("recurrent")

    @recurrent_weights.setter
    def recurrent_weights(self, value: Any) -> None:
        self.__dict__["recurrent_weights"] = value


class DelayedWeight:
    """Stands in for a weight inside Norse's step functions: ``linear(spikes, self)`` is the delayed current."""

    def __init__(self, weight: Tensor, synapse: Synapse, attachment: Attachment, history: History) -> None:
        def product(spikes: Tensor) -> Tensor:
            return nn.functional.linear(spikes, weight)

        self.product = Product(product, product, weight, None)
        self.synapse, self.attachment, self.history = synapse, attachment, history

    @classmethod
    def __torch_function__(cls, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not nn.functional.linear or len(args) < 2 or not isinstance(args[1], cls):
            return NotImplemented
        spikes, self = args[:2]
        return step_connection(self.synapse, self.attachment, self.product, spikes, self.history)


def is_initial(state: Any) -> bool:
    """Tell a freshly made state (no spikes, no current; or, with neither, one voltage) from a running one."""
    fields = state._asdict() if hasattr(state, "_asdict") else {}
    nested = [v for v in fields.values() if hasattr(v, "_asdict")]
    inputs = [v.detach() for k, v in fields.items() if k in ("z", "i") and isinstance(v, Tensor)]
    if not inputs and not nested and isinstance(v := fields.get("v"), Tensor):
        return bool((v == v.flatten()[:1]).all())
    return not any(bool(v.any()) for v in inputs) and all(is_initial(v) for v in nested)


def resting(module: nn.Module, state: Any) -> Any:
    """Return the state that a neuron begins with beside a running one, which is not zero where its leak is not.

    Args:
        module: the neuron.
        state: its running state.
    """
    make, voltage = getattr(module, "state_fallback", None), getattr(getattr(state, "lif", state), "v", None)
    if make is None or not isinstance(voltage, Tensor):
        return None
    with torch.no_grad():
        return make(voltage.detach())
