"""What runs one segment of a connection: a whole sequence at once, or step by step. Tensors in, tensors out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Protocol

from torch import Tensor


class Stepper(Protocol):
    """The remembered past of one stream in step mode, e.g. a :class:`~delaykit.functional.step_tape.Tape`."""

    def step(self, x: Tensor) -> Tensor:
        """Run one step: ``(batch, pre, *space) -> (batch, post, *space)``."""

    def detach(self) -> None:
        """Cut the graph (truncated BPTT); :meth:`Engine.rebind` hands the parameters over anew."""


class Engine(ABC):
    """One segment's parameters, computed once (from a reset or detach to the next) and ready to run."""

    remember: int | None = None  # how many steps a tape keeps when its graph is cut

    @abstractmethod
    def sequence(self, spikes: Tensor) -> Tensor:
        """Run a whole sequence: ``(time, batch, pre, *space) -> (time, batch, post, *space)``, bias included."""

    @abstractmethod
    def tape(self) -> Stepper:
        """Start an empty history for step mode."""

    @abstractmethod
    def rebind(self, tape: Any) -> None:
        """Start a new segment on a tape that keeps its remembered spikes (truncated BPTT)."""

    def step(self, tape: Stepper, spikes: Tensor) -> Tensor:
        """Run one step: ``(batch, pre, *space) -> (batch, post, *space)``, bias included."""
        return tape.step(spikes)
