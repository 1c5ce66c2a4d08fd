"""How the calls of a connection and the steps of the neurons behind it go together."""

from __future__ import annotations

from typing import Protocol


class CountsSteps(Protocol):
    """A neuron that a connection leads to."""

    steps: int

    def unfinished(self) -> bool:
        """Tell whether a step failed, and none came since."""


class Beat:
    """How the calls of a connection and the steps of a neuron behind it go together.

    Args:
        neuron: counts its steps.
        path: its name, for messages.
        each: steps of the neuron from one call to the next (of the same stream).
    """

    def __init__(self, neuron: CountsSteps, path: str, each: int) -> None:
        self.neuron, self.path, self.each = neuron, path, each
        self.mark = 0
