"""Dropout of a connection's current: one mask a sequence, so that a neuron loses the connection for all of it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from delaykit.functional.engine import Engine, Stepper
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


class DropoutTape:
    """A tape whose current is masked; the mask is drawn at the first step and outlives the cuts of truncated BPTT."""

    def __init__(self, tape: Stepper, delay: Delay) -> None:
        self.tape, self.delay = tape, delay
        self._mask: Tensor | None = None
        self._drawn = False

    def mask(self, current: Tensor) -> Tensor:
        """Scale a step's current (batch, post, *space) by this sequence's mask."""
        if not self._drawn:
            self._mask, self._drawn = draw_mask(self.delay, current.shape[:2], current), True
        return current if self._mask is None else current * widen(self._mask, current)

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


def widen(mask: Tensor, current: Tensor) -> Tensor:
    """Line a mask (batch, post) up with a current (..., batch, post, *space) whose batch is where the mask's is."""
    return mask.reshape(*mask.shape, *[1] * (current.dim() - mask.dim()))


def mask_sequence(delay: Delay, current: Tensor) -> Tensor:
    """Scale (time, batch, post, *space) by one mask for the whole sequence."""
    mask: Any = draw_mask(delay, current.shape[1:3], current)
    return current if mask is None else current * widen(mask, current[0])


class DropoutEngine(Engine):
    """Any engine, its current (bias included) masked by :attr:`Delay.dropout`."""

    def __init__(self, engine: Engine, delay: Delay) -> None:
        self.engine, self.delay, self.pairs = engine, delay, engine.pairs

    def sequence(self, spikes: Tensor) -> Tensor:
        return mask_sequence(self.delay, self.engine.sequence(spikes))

    def stale(self, weight: Tensor | None, bias: Tensor | None) -> bool:
        return self.engine.stale(weight, bias)

    def tape(self) -> Stepper:
        return DropoutTape(self.engine.tape(), self.delay)

    def rebind(self, tape: Any) -> None:
        self.engine.rebind(tape.tape)

    def reach(self) -> int | None:
        return self.engine.reach()

    def holds(self) -> int:
        return self.engine.holds()

    def step(self, tape: Any, spikes: Tensor) -> Tensor:
        return tape.mask(self.engine.step(tape.tape, spikes))
