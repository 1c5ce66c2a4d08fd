"""Synapses whose arrivals are triangles of one width, wider than a linear one: two numbers a synapse for any spread."""

from __future__ import annotations

import torch
from torch import Tensor

from delaykit.functional.delayed_linear.operator import delayed_linear
from delaykit.functional.delayed_linear.tented_sequences import tented_linear
from delaykit.functional.engine_base import Engine, Stepper
from delaykit.functional.step_tape.cells.reading import CellFilter
from delaykit.functional.step_tape.cells.tents import TentFilter, grid_of
from delaykit.functional.step_tape.operator import LinearTape
from delaykit.functional.tents import Tents
from delaykit.interfaces import PointDelay


class TentsEngine(Engine):
    """A delay of every synapse, seen through a triangle.

    Args:
        tents: the delays and the width.
        weight: ``(post, pre)``.
        bias: ``(post,)`` or None.
    """

    copies = True

    def __init__(self, tents: Tents, weight: Tensor, bias: Tensor | None) -> None:
        scale = tents.scale()
        self.tents, self.plain = tents, (weight, bias)
        self.scaled = weight if scale is None else weight * scale.to(weight.dtype)

    def sequence(self, spikes: Tensor) -> Tensor:
        weight, bias = self.plain
        inside = torch._C._functorch.peek_interpreter_stack() is not None
        if inside or not TentFilter.runs_on(weight.device) or spikes.dtype != weight.dtype or not spikes.numel():
            return delayed_linear(spikes, weight, self.tents.taps(), bias)
        current = tented_linear(spikes, self.scaled, self.tents)
        return current if bias is None else current + bias

    def tape(self) -> Stepper:
        return LinearTape(self.tents, self.scaled, self.plain[1], remember=self.remember)

    def rebind(self, tape: LinearTape) -> None:
        tape.rebind(self.tents, self.scaled, self.plain[1])

    def reach(self) -> int:
        return self.tents.memory()


def may_read_cells(delay: PointDelay, weight: Tensor, filter: type[CellFilter]) -> bool:
    """Tell whether a delay is one of every synapse, whose kernel alone says how spikes arrive, and a chip reads it.

    Args:
        delay: of the connection.
        weight: ``(post, pre)``.
        filter: what would read the cells.
    """
    if delay.granularity != "synaptic" or delay.estimator != "interp" or torch.compiler.is_compiling():
        return False
    if type(delay).taps is not PointDelay.taps or type(delay).impulse_response is not PointDelay.impulse_response:
        return False  # it arrives in a way of its own
    return filter.runs_on(weight.device)


def tents_engine(delay: PointDelay, weight: Tensor, bias: Tensor | None) -> TentsEngine | None:
    """Return what runs a delay by two numbers a synapse, None where taps serve it as well or better."""
    if not may_read_cells(delay, weight, TentFilter):
        return None
    tents = delay.kernel().tents(delay.delays())
    if tents is None or tents.factor is not None:
        return None
    return None if grid_of(tents, weight) is None else TentsEngine(tents, weight, bias)
