"""A neuron whose time constants are learned: its decays hang beside it, and its own attributes read them."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from delaykit.attaching.retyping import Undo, give_class_, retype_
from delaykit.sizes import check_sizes
from delaykit.time_constants import NeuronDecays

CONSTANTS = "dk_constants"  # the child of a neuron that holds them, by the name of the state


def constants_of(module: nn.Module) -> dict[str, NeuronDecays]:
    """Return the decays that a neuron was given, by the name of the state."""
    held = module._modules.get(CONSTANTS)
    return {} if held is None else dict(held.named_children())  # type: ignore[arg-type]


def learned(module: nn.Module, state: str) -> Tensor | None:
    """Return the decays in use for a state; None where there are none, or where they are switched off.

    Args:
        module: the neuron.
        state: ``membrane`` or ``synapse``, as the adapter's ``decays()`` names it.
    """
    held = module._modules.get(CONSTANTS)
    part: Any = None if held is None else held._modules.get(state)
    if part is None or part.off:
        return None
    decay: Tensor | None = getattr(part, "decay", None)
    if decay is None or decay.shape != part.size:  # asked at every step, where a decay of another size would broadcast
        check_sizes(part.where, part)
    return decay


def attach_constants_(module: nn.Module, part: NeuronDecays, mixin: type) -> list[Undo]:
    """Hang decays beside a neuron; return how to take them back.

    Args:
        module: the neuron.
        part: its decays.
        mixin: its attributes that read :func:`learned`.
    """
    before, state = module.__class__, part.config.state
    if CONSTANTS not in module._modules:
        retype_(module, mixin)
        module.add_module(CONSTANTS, nn.ModuleDict())
    module._modules[CONSTANTS][state] = part  # type: ignore[index, operator]
    return [Undo(_detach_, (module, state, before))]


def _detach_(module: nn.Module, state: str, before: type) -> None:
    held = module._modules.get(CONSTANTS)
    if isinstance(held, nn.ModuleDict) and state in held:
        del held[state]
    if not held:
        module._modules.pop(CONSTANTS, None)
        give_class_(module, before)
