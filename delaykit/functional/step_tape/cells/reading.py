"""Synapses that read a line of cells (:mod:`~delaykit.functional.step_tape.cells.lines`) in place of what was recorded.

Gradients are the same upside down: steps come last first, and what a cell holds at a step is what later outputs
tell it.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from delaykit.functional.dispatch import implementation_of, kernel_of
from delaykit.functional.step_tape.cells.lines import Written
from delaykit.functional.step_tape.filters import Filter
from delaykit.functional.step_tape.recording import Recording
from delaykit.functional.step_tape.segment_operators import FilterOnly, FilterOperator, Gradients


class CellReader:
    """Reads the cells of each synapse at every step.

    Args:
        place: rows from now, ``(m, from, to)``.
        strength: ``(m, from, to)``.
    """

    def __init__(self, place: Tensor, strength: Tensor) -> None:
        # (from, to, m): the kernels take one source channel after the other
        self._taps = tuple(x.permute(1, 2, 0).contiguous() for x in (place, strength))
        self._kept: dict[str, Any] = {}
        self._read = implementation_of("tape_synapses", strength.device)

    def __call__(self, rows: Tensor, now: int, out: Tensor) -> None:
        """Sum the cells of ``rows (from, cell, chunk)`` around row ``now`` into ``out (to, batch, space)``."""
        self._read(rows, now, *self._taps, out, self._kept)


class PolynomialReader:
    """Reads the polynomial that the neighbouring cells of each synapse hold, at every step.

    Args:
        terms: number of cells.
        place: row of the first of them, from now, ``(from, to)``.
        part: where to evaluate the polynomial, ``(from, to)``.
        strength: ``(from, to)``.
    """

    def __init__(self, terms: int, place: Tensor, part: Tensor, strength: Tensor) -> None:
        self._terms, self._table = terms, tuple(x.contiguous() for x in (place, part, strength))
        self._kept: dict[str, Any] = {}
        self._read = implementation_of("tape_polynomials", strength.device)

    def __call__(self, rows: Tensor, now: int, out: Tensor) -> None:
        """Sum the polynomials of ``rows (from, cell, chunk)`` around row ``now`` into ``out (to, batch, space)``."""
        self._read(rows, now, *self._table, self._terms, out, self._kept)


class Adjoint(Protocol):
    """What a backward pass tells of outputs, last step first, and asks for the gradients of inputs."""

    def write(self, source: Tensor, row: int, silent: bool = False) -> None:
        """Take the output gradients ``source[:, row]``, a step before the last ones; ``silent``: all zero."""

    def read(self, out: Tensor) -> None:
        """Write the input gradient of this step to ``out (inputs, batch, space)``."""


class CellFilter(Filter):
    """A filter that reads a line of cells.

    Attributes:
        operators: what it runs. Taps serve as well on a chip that has no kernel for one of these.
        behind: reads the cells that inputs have written.
        ahead: reads those that output gradients have written, where these write what inputs do.
    """

    operators: ClassVar[tuple[str, ...]]
    behind: CellReader | PolynomialReader
    ahead: CellReader | PolynomialReader

    @classmethod
    def runs_on(cls, device: torch.device) -> bool:
        """Tell whether a chip has a kernel for all that such a filter runs, and no other backend was asked for."""
        return all(kernel_of(operator, device) is not None for operator in cls.operators)

    @abstractmethod
    def line(self, channels: int, chunk: int) -> Written:
        """Make an empty line of cells."""

    def adjoint(self, chunk: int) -> Adjoint:
        """Make what a backward pass goes through."""
        return _Mirrored(self, chunk)

    def read(self, rows: Tensor, row: int, out: Tensor) -> None:
        self.behind(rows, row, out)

    def read_back(self, rows: Tensor, row: int, out: Tensor) -> None:
        self.ahead(rows, row, out)


class _Mirrored:
    """The same line, for output gradients."""

    def __init__(self, filter: CellFilter, chunk: int) -> None:
        self.filter, self.line = filter, filter.line(filter.outputs, chunk)
        self.write = self.line.write

    def read(self, out: Tensor) -> None:
        self.filter.read_back(self.line.rows, self.line.now, out)


class CellOperator(FilterOperator):
    """Synapses that read cells, plus a bias."""

    filter: CellFilter

    def replay(self, recording: Recording, remains: Tensor | None = None) -> None:
        self.cells = self.filter.line(self.filter.inputs, self.chunk)
        for row in range(recording.pad, recording.size):
            self.cells.write(recording.rows, row)

    def forward(self, x: Tensor, recording: Recording, row: int, keep: int | None) -> Tensor:
        self.cells.write(recording.rows, row)
        return super().forward(x, recording, row, keep)

    def filtered(self, rows: Tensor, row: int, out: Tensor, sums: Any) -> None:
        self.filter.read(self.cells.rows, self.cells.now, out)

    def gradients(self, recording: Recording, last: int) -> Gradients:
        return _CellGradients(self, recording, last)


class _CellGradients(FilterOnly):
    operator: CellOperator

    def __init__(self, operator: CellOperator, recording: Recording, last: int) -> None:
        super().__init__(operator, recording, last)
        self.adjoint = operator.filter.adjoint(operator.chunk)

    def push(self, row: int, grad: Tensor | None) -> None:
        super().push(row, grad)
        self.adjoint.write(self.stream.rows, row, silent=grad is None)

    def input(self, row: int) -> Tensor:
        out = self.operator.empty(self.operator.filter.inputs)
        self.adjoint.read(self.operator.turned(out))
        return out
