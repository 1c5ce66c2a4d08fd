"""snnTorch neurons whose ``beta`` and ``alpha`` are learned decays of delaykit's."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from delaykit.attaching.neuron.time_constants import learned
from delaykit.attaching.retyping import library_class

NAMES = {"membrane": "beta", "synapse": "alpha"}
KNOWN = {
    "Leaky": ("membrane",),
    "RLeaky": ("membrane",),
    "Synaptic": ("membrane", "synapse"),
    "RSynaptic": ("membrane", "synapse"),
}


class LearnedSnn:
    """Mixin whose ``beta`` and ``alpha`` are the decays that it was given, or its own."""

    keeps_signature = True

    @property
    def beta(self) -> Tensor:
        """Return the membrane's decay a step."""
        return _read(self, "membrane")

    @property
    def alpha(self) -> Tensor:
        """Return the synaptic current's decay a step."""
        return _read(self, "synapse")


def decays_of(neuron: nn.Module) -> dict[str, Tensor]:
    """Return a neuron's own decays a step, as snnTorch clamps them; those that it learns itself keep their gradient.

    Example:
        >>> decays_of(nn.ReLU())
        {}
    """
    found = {state: getattr(neuron, NAMES[state]) for state in KNOWN.get(library_class(neuron, "snntorch") or "", ())}
    return {state: value.clamp(0, 1) for state, value in found.items()}


def _read(neuron: Any, state: str) -> Tensor:
    name, decay = NAMES[state], learned(neuron, state)
    own: Tensor | None = neuron._parameters.get(name, neuron._buffers.get(name))
    if own is None:
        raise AttributeError(name)
    return own if decay is None else decay.to(own.dtype)
