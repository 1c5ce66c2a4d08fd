"""Synapses whose arrivals are triangles of their neuron's own width, or gaussians: a few numbers each in step loops."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from delaykit.arrivals import GAUSSIAN_FLOOR, NORMALIZE_EPSILON, Gaussian, Kernel
from delaykit.engines.tents import may_read_cells
from delaykit.functional.delayed_linear.operator import delayed_linear
from delaykit.functional.engine_base import Engine, Stepper
from delaykit.functional.step_tape.cells.basis import Bells, basis_for
from delaykit.functional.step_tape.cells.bells import BellFilter
from delaykit.functional.step_tape.cells.spreads import SpreadFilter, fits
from delaykit.functional.step_tape.operator import LinearTape
from delaykit.functional.taps import check_causal
from delaykit.functional.tents import OwnTents
from delaykit.interfaces import PointDelay


class CellsEngine(Engine):
    """A delay of every synapse: steps by cells, whole sequences by taps.

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
    spreads, bells = (may_read_cells(delay, weight, filter) for filter in (SpreadFilter, BellFilter))
    if not spreads and not bells:
        return None
    kernel, delays = delay.kernel(), delay.delays()
    tents = kernel.own_tents(delays)
    cells: OwnTents | Bells | None = bells_of(kernel, delays, weight) if tents is None and bells else None
    if tents is not None and spreads and fits(tents, weight):
        cells = tents
    return None if cells is None else CellsEngine(cells, weight, bias)


def bells_of(kernel: Kernel, delays: Tensor, weight: Tensor) -> Bells | None:
    """Describe arrivals by gaussians of one width, None for other kernels, and where taps serve as well or better.

    They do on a chip without kernels that read cells, and where another backend was asked for.

    Args:
        kernel: the shape of an arrival.
        delays: ``(post, pre)``, steps.
        weight: of the connection, ``(post, pre)``.
    """
    if type(kernel) is not Gaussian or torch.compiler.is_compiling():
        return None
    if isinstance(kernel.spread, Tensor) and (kernel.spread.requires_grad or kernel.spread.numel() != 1):
        return None
    if delays.shape != weight.shape or not delays.numel() or not BellFilter.runs_on(weight.device):
        return None
    check_causal("Gaussian", delays)
    kernel = dataclasses.replace(kernel, spread=float(kernel.spread), window=kernel.depth(float(delays.detach().max())))
    window, std = kernel.depth(0.0), abs(float(kernel.spread)) + GAUSSIAN_FLOOR
    basis = basis_for(std, window, delays, weight)
    epsilon = NORMALIZE_EPSILON if kernel.normalize else None
    return None if basis is None else Bells(delays, basis, window, kernel, epsilon)
