"""Triangles of one width around the delay of every synapse, step by step: two numbers a synapse for any spread.

:mod:`delaykit.functional.tents` says why two cells are exact. Each input writes the triangle of its step into a line of
cells, once for all synapses, and a synapse reads the two cells around its delay. Inputs to come have not been written
yet, so nothing arrives before it was sent. Gradients are the same upside down: steps come last first, and what a cell
holds at a step is what later outputs tell it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from delaykit.functional.delay_line.operator import working_dtype
from delaykit.functional.dispatch import resolve
from delaykit.functional.step_tape.filters import Filter, compact
from delaykit.functional.step_tape.operators import FilterOnly, FilterOperator, Gradients
from delaykit.functional.step_tape.recording import Recording, empty_rows, spread
from delaykit.functional.tents import Grid, Tents

SLACK = 32  # steps after which a line is moved back to its beginning
NARROW_LINE = 64  # cells that a triangle may have however few the synapses


def grid_of(tents: Tents, weight: Tensor) -> Grid | None:
    """Return the grid of cells for a connection, None where listing taps serves it better.

    Args:
        tents: a delay for each synapse.
        weight: ``(post, pre)``.
    """
    grid = Grid.of(tents.width)
    if tents.width <= 1 or tents.shape != weight.shape or min(weight.shape) < 2 or weight.device.type != "cpu":
        return None
    if weight.dtype not in (torch.float32, torch.float64) or not grid.is_wide_enough(weight.dtype):
        return None
    return grid if len(grid.line()[0]) <= max(2 * min(weight.shape), NARROW_LINE) else None


class Cells:
    """The line of cells of one stream, ``(channel, cell, chunk)``; a cell n steps late is ``n * phases`` rows back.

    Args:
        grid: where the cells are.
        farthest: the cell of the longest delay.
        channels: rows' first size.
        chunk: rows' last size.
        dtype: of the rows.
        device: of the rows.

    Attributes:
        rows: the cells.
        now: row of the first cell of this step.
    """

    def __init__(
        self, grid: Grid, farthest: int, channels: int, chunk: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        places, heights = grid.line()
        self.phases, self.high, self.low = grid.phases, places[-1], -places[0]
        self.behind = max(farthest + 1, self.high) + 1
        size = spread(self.behind + SLACK * self.phases + self.low + 2)
        self.rows = empty_rows((channels, size, chunk), dtype, device).zero_()
        self.height = torch.tensor(heights[::-1], dtype=dtype, device=device)
        self.now = self.behind - self.phases
        self._write = resolve("tape_tents", device)

    def write(self, source: Tensor | None, row: int) -> None:
        """Go on by a step, and write the triangle of an input ``source[:, row]`` around it; None: of nothing."""
        self.now += self.phases
        if self.now + self.low + 2 > self.rows.shape[1]:
            self._move()
        if source is not None:
            self._write(self.rows, self.now - self.high, self.height, source, row)

    def _move(self) -> None:
        kept = self.rows[:, self.now - self.behind : self.now + self.low + 1].clone()
        self.rows[:, : kept.shape[1]] = kept
        self.rows[:, kept.shape[1] :] = 0
        self.now = self.behind


class TentFilter(Filter):
    """Delay and weigh every synapse, its spikes spread over a triangle of a common width.

    It reads lines of :class:`Cells`, not the rows of a recording.

    Args:
        tents: a delay for each synapse, and the width.
        weight: ``(post, pre)``, times what the tents are scaled by.
    """

    def __init__(self, tents: Tents, weight: Tensor) -> None:
        self.outputs, self.inputs = weight.shape
        self.parameters = (tents.delays, weight)
        self.grid = Grid.of(tents.width)
        self.delays = tents.delays.detach().double()
        self.reach = int(float(self.delays.max()) + tents.width) + 1
        self.cell, self.part = self.grid.place(self.delays)
        self.farthest = int(self.cell.max()) + 1
        strength = weight.detach()
        high = self.part.to(strength.dtype) * strength
        cells = torch.stack([self.cell, self.cell + 1]).long()
        strength, index = compact(torch.stack([strength - high, high]), cells)
        # (from, to, m): the kernels take one source channel after the other
        self._behind = -index.permute(2, 1, 0).contiguous(), strength.permute(2, 1, 0).contiguous()
        self._ahead = -index.permute(1, 2, 0).contiguous(), strength.permute(1, 2, 0).contiguous()
        self._kept: tuple[dict[str, Any], dict[str, Any]] = {}, {}
        self._synapses = resolve("tape_synapses", weight.device)

    def line(self, channels: int, chunk: int) -> Cells:
        """Make an empty line of cells."""
        weight = self.parameters[1]
        return Cells(self.grid, self.farthest, channels, chunk, weight.dtype, weight.device)

    def read(self, rows: Tensor, row: int, out: Tensor) -> None:
        self._synapses(rows, row, *self._behind, out, self._kept[0])

    def read_back(self, rows: Tensor, row: int, out: Tensor) -> None:
        self._synapses(rows, row, *self._ahead, out, self._kept[1])

    def correlate(self, gradients: Tensor, rows: Tensor, start: int, stop: int) -> tuple[Tensor | None, ...]:
        overlap = Overlap(self, rows.device)
        line = self.line(self.outputs, gradients.shape[2])
        for row in range(stop - 1, max(start - self.reach, -1), -1):
            line.write(gradients if row >= start else None, row)
            overlap.add(line, rows, row)
        low = max(start - self.reach + 1, 0)
        gradients[:, low:start].zero_()
        return overlap.gradients(rows[:, low:stop], gradients[:, low:stop])


class Overlap:
    """What inputs share with the gradient that has arrived at their synapses' cells, and the gradients made of it.

    Args:
        filter: of the connection.
        device: where.
    """

    def __init__(self, filter: TentFilter, device: torch.device) -> None:
        self.filter = filter
        weight = filter.parameters[1]
        self.on_node = filter.part == 0
        places = (0, 1, -1) if filter.parameters[0].requires_grad and bool(self.on_node.any()) else (0, 1)
        self.offset = torch.stack([-(filter.cell + place) for place in places], 2).int().contiguous()
        self.shares = torch.zeros(*weight.shape, len(places), dtype=weight.dtype, device=device)
        self._add = resolve("tape_overlap", device)

    def add(self, line: Cells, rows: Tensor, row: int) -> None:
        """Take the inputs ``rows[:, row]`` in, at whose step the line is."""
        self._add(line.rows, line.now, self.offset, rows[:, row].to(line.rows.dtype).contiguous(), self.shares)

    def gradients(self, rows: Tensor, gradients: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Give the gradients of delays and weight, from inputs and output gradients of the same steps."""
        filter, (delays, weight) = self.filter, self.filter.parameters
        low, high = self.shares[..., 0], self.shares[..., 1]
        rise = (high - low).double()
        grad_weight = (low + filter.part * rise).to(weight.dtype) if weight.requires_grad else None
        if not delays.requires_grad:
            return None, grad_weight
        slope = rise / filter.grid.gaps(filter.cell)
        if self.shares.shape[2] == 3:  # on a node, the mean of both sides, as clamp(min=0) of the triangle has it
            before = (low - self.shares[..., 2]).double() / filter.grid.gaps(filter.cell - 1)
            slope = torch.where(self.on_node, (slope + before + self._ends(rows, gradients)) / 2, slope)
        return (weight.detach() * slope).to(delays.dtype), grad_weight

    def _ends(self, rows: Tensor, gradients: Tensor) -> Tensor:
        """Gradient under the right end of each triangle less that under the left, where these are integers."""
        delays, width = self.filter.delays, self.filter.grid.width
        ends = torch.stack([delays - width, delays + width])
        hit = (ends == ends.round()) & (ends >= 0) & self.on_node
        if not bool(hit.any()):
            return torch.zeros_like(delays)
        index = torch.where(hit, ends, torch.full_like(ends, rows.shape[1])).long()
        work = working_dtype(gradients, 0)
        left, right = resolve("synapse_correlation", rows.device)(
            rows.permute(1, 2, 0).to(work), gradients.permute(1, 2, 0), index
        )
        return (right - left).double() / width**2


class TentOperator(FilterOperator):
    """Synapses with triangles of one width, plus a bias."""

    filter: TentFilter

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
        return _TentGradients(self, recording, last)


class _TentGradients(FilterOnly):
    def __init__(self, operator: TentOperator, recording: Recording, last: int) -> None:
        super().__init__(operator, recording, last)
        self.cells = operator.filter.line(operator.filter.outputs, operator.chunk)

    def push(self, row: int, grad: Tensor | None) -> None:
        super().push(row, grad)
        self.cells.write(None if grad is None else self.stream.rows, row)

    def input(self, row: int) -> Tensor:
        out = self.operator.empty(self.operator.filter.inputs)
        self.operator.filter.read_back(self.cells.rows, self.cells.now, self.operator.turned(out))
        return out
