"""Synapses whose arrivals are triangles of their neuron's own width, or gaussians: a few numbers each in step loops."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from delaykit.arrivals import bells_of
from delaykit.engines.tents import may_read_cells
from delaykit.functional.delayed_linear.operator import delayed_linear
from delaykit.functional.engine import Engine, Stepper
from delaykit.functional.step_tape.cells.basis import Bells
from delaykit.functional.step_tape.cells.spreads import fits
from delaykit.functional.step_tape.operator import LinearTape
from delaykit.functional.tents import OwnTents
from delaykit.interfaces import PointDelay


class CellsEngine(Engine):
    """A delay of every synapse on the CPU: steps by cells, whole sequences by taps.

    Args:
        cells: what synapses read in steps, and lists the same as taps.
        weight: ``(post, pre)``.
        bias: ``(post,)`` or None.
    """

    copies = True

    def __init__(self, cells: OwnTents | Bells, weight: Tensor, bias: Tensor | None) -> None:
        self.parameters = (cells, weight, bias)

    def sequence(self, spikes: Tensor) -> Tensor:
        cells, weight, bias = self.parameters
        return delayed_linear(spikes, weight, cells.taps(), bias)

    def tape(self) -> Stepper:
        return LinearTape(*self.parameters, remember=self.remember)

    def rebind(self, tape: Any) -> None:
        tape.rebind(*self.parameters)

    def reach(self) -> int:
        return self.parameters[0].memory()


def cells_engine(delay: PointDelay, weight: Tensor, bias: Tensor | None) -> CellsEngine | None:
    """Return what runs a delay by cells, None where taps serve it as well or better."""
    if not may_read_cells(delay, weight):
        return None
    kernel, delays = delay.kernel(), delay.delays()
    tents = kernel.own_tents(delays)
    cells = bells_of(kernel, delays, weight) if tents is None else tents if fits(tents, weight) else None
    return None if cells is None else CellsEngine(cells, weight, bias)
