"""Dropout of a connection's current: one mask a sequence, so that a neuron loses the connection for all of it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from delaykit.functional.engine_base import Engine, Stepper
from delaykit.interfaces import Delay


def draw_mask(delay: Delay, shape: torch.Size, like: Tensor) -> Tensor | None:
    """Draw the factors ``m / (1 - p)``, m = 0 with probability p, from torch's generator; None while not training.

    Args:
        delay: says the probability and whether it is being trained.
        shape: (batch, post).
        like: dtype and device.
    """
    if not (delay.training and delay.dropout > 0):
        return None
    keep = 1.0 - delay.dropout
    return torch.empty(shape, dtype=like.dtype, device=like.device).bernoulli_(keep) / keep


class Mask:
    """The factors of one sequence: drawn when its first current comes, they outlive cuts and pieces.

    Args:
        delay: says the probability and whether it is being trained.
    """

    def __init__(self, delay: Delay) -> None:
        self.delay = delay
        self.factors: Tensor | None = None
        self._drawn = False

    def __call__(self, current: Tensor, ahead: int = 0) -> Tensor:
        """Scale a current (batch, post, *space), with ``ahead`` dimensions in front."""
        if not self._drawn:
            self.factors, self._drawn = draw_mask(self.delay, current.shape[ahead : ahead + 2], current), True
        if self.factors is None:
            return current
        return current * self.factors.reshape(*self.factors.shape, *[1] * (current.dim() - ahead - 2))


class DropoutTape:
    """A tape whose current is masked."""

    def __init__(self, tape: Stepper, mask: Mask) -> None:
        self.tape, self.mask = tape, mask

    def step(self, x: Tensor) -> Tensor:
        """Run one masked step: (batch, pre, *space) -> (batch, post, *space)."""
        return self.mask(self.tape.step(x))

    def silent(self, before_last: bool = False) -> bool:
        """Tell whether nothing is under way."""
        asked = getattr(self.tape, "silent", None)
        return False if asked is None else bool(asked(before_last))

    def graph_under_way(self) -> bool:
        """Tell whether a later gradient has to reach an input of this segment."""
        asked = getattr(self.tape, "graph_under_way", None)
        return True if asked is None else bool(asked())

    def detach(self) -> None:
        """Cut the graph; the mask stays."""
        self.tape.detach()


class DropoutEngine(Engine):
    """Any engine, its current (bias included) masked by :attr:`Delay.dropout`."""

    def __init__(self, engine: Engine, delay: Delay) -> None:
        self.engine, self.delay, self.pairs = engine, delay, engine.pairs

    def sequence(self, spikes: Tensor) -> Tensor:
        return Mask(self.delay)(self.engine.sequence(spikes), 1)

    def stale(self, weight: Tensor | None, bias: Tensor | None) -> bool:
        return self.engine.stale(weight, bias)

    def tape(self) -> Stepper:
        return DropoutTape(self.engine.tape(), Mask(self.delay))

    def rebind(self, tape: Any) -> None:
        self.engine.rebind(tape.tape)

    def reach(self) -> int | None:
        return self.engine.reach()

    def holds(self) -> int:
        return self.engine.holds()

    def step(self, tape: Any, spikes: Tensor) -> Tensor:
        return tape.mask(self.engine.step(tape.tape, spikes))
