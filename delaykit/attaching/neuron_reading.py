"""What delaykit asks an adapter about one neuron while a model runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from torch import Tensor, nn

from delaykit.functional.dynamics import LIFDynamics


class ReadsNeurons(Protocol):
    """The part of :class:`~delaykit.NeuronAdapter`, where each is described, that what hangs beside a neuron keeps.

    The interface as a whole names what an adapter attaches, and so lies above it.
    """

    def membrane(self, module: nn.Module, state: Any = None) -> Tensor | None:
        """Return the membrane that a neuron keeps between its calls, or the one in ``state``."""

    def given_membrane(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor | None:
        """Return the membrane that a call passes explicitly."""

    def held_state(self, module: nn.Module) -> list[Tensor]:
        """Return the state tensors that a neuron keeps."""

    def given_state(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Tensor]:
        """Return the state tensors that a call passes explicitly."""

    def begins(self, state: Any) -> bool:
        """Tell whether a carried state is one that nobody stepped yet."""

    def resting(self, module: nn.Module, state: Any) -> Any:
        """Return a fresh state beside ``state``; None where a fresh one is zero."""

    def dynamics(self, module: nn.Module) -> LIFDynamics | None:
        """Describe a neuron as a leaky integrator, or None."""
