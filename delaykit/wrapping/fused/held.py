"""What a unit's sequence was made with, and the state that it would have left step by step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from delaykit.errors import HistoryError
from delaykit.functional.engine_base import version_of
from delaykit.wrapping.fused.evaluate import random_states, restore_states, same_states
from delaykit.wrapping.fused.units import NeuronUnit, Unit

Kept = list[tuple[dict[str, Any], str, Any, int | None]]
DETACH = "detach the state before the optimizer's step, or pass None first"


def held_by(unit: Unit) -> Iterator[tuple[dict[str, Any], str, Any, int | None]]:
    """Yield where a unit keeps each parameter and constant, it, and its version; a neuron's state is neither."""
    neuron = isinstance(unit, NeuronUnit)
    kept = unit.neuron.adapter.held_state(unit.module) if isinstance(unit, NeuronUnit) and unit.neuron.follows else []
    state = {id(tensor) for tensor in kept}
    for module in unit.module.modules():
        own = vars(module) if neuron and module is unit.module else {}
        plain = [name for name in own if not name.startswith("_") and name != "forward"]
        parameters, buffers = module._parameters, module._buffers
        for place, names in ((parameters, parameters), (buffers, buffers), (own, plain)):
            for name in names:
                if id(place[name]) not in state:
                    yield place, name, place[name], _writes_to(place[name])


def changed(kept: Kept) -> bool:
    """Tell whether something was put in another's place, or written to, since :func:`held_by`."""
    return any(place.get(name) is not value or _writes_to(value) != before for place, name, value, before in kept)


def _writes_to(value: Any) -> int | None:
    return version_of(value) if isinstance(value, Tensor) else 0


def state_behind(module: Any, inputs: list[Tensor], kept: Kept, grad: bool) -> Any:
    """Step a connection over what it was given ahead; return its state behind it.

    Raises:
        HistoryError: it is not what it was, or draws random numbers.
    """
    where = module._dk.sites[""].where
    if changed(kept):
        found = "the last state of a fused run, after a change of the weights, delays or constants of that run"
        raise HistoryError(where, found, "a state that is gone on from, or detached, before they change", DETACH)
    drawn, state = random_states(), None
    with torch.set_grad_enabled(grad):
        for x in inputs:
            _, state = module.forward(x, state)
    if not same_states(drawn, random_states()):
        restore_states(drawn)
        found = "the last state of a fused run whose delays or masks were drawn at random"
        raise HistoryError(where, found, "a state of the step loop", "run it step by step, or pass None first")
    return state
