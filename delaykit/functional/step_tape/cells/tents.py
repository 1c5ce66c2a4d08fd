"""Triangles of one width around the delay of every synapse, step by step: two numbers a synapse for any spread.

:mod:`delaykit.functional.tents` says why two cells are exact. Each input writes the triangle of its step into a line of
cells, once for all synapses, and a synapse reads the two cells around its delay. Inputs to come have not been written
yet, so nothing arrives before it was sent. Gradients are the same upside down: steps come last first, and what a cell
holds at a step is what later outputs tell it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from delaykit.functional.delay_line.operator import working_dtype
from delaykit.functional.dispatch import implementation_of
from delaykit.functional.step_tape.cells.lines import Heights, Line, Written
from delaykit.functional.step_tape.cells.reading import CellFilter, CellReader
from delaykit.functional.step_tape.filters import compact
from delaykit.functional.tents import Grid, Tents

NARROW_LINE = 64  # cells that a triangle may have however few the synapses


def grid_of(tents: Tents, weight: Tensor) -> Grid | None:
    """Return the grid of cells for a connection, None where listing taps serves it better.

    Args:
        tents: a delay for each synapse.
        weight: ``(post, pre)``.
    """
    grid = Grid.of(tents.width)
    if tents.width <= 1 or tents.shape != weight.shape or min(weight.shape) < 2:
        return None
    if weight.dtype not in (torch.float32, torch.float64) or not grid.is_wide_enough(weight.dtype):
        return None
    return grid if len(grid.line()[0]) <= max(2 * min(weight.shape), NARROW_LINE) else None


class TentFilter(CellFilter):
    """Delay and weigh every synapse, its spikes spread over a triangle of a common width.

    Args:
        tents: a delay for each synapse, and the width.
        weight: ``(post, pre)``, times what the tents are scaled by.
    """

    operators = ("tape_tents", "tape_pending", "tape_synapses", "tape_overlap")

    def __init__(self, tents: Tents, weight: Tensor) -> None:
        self.outputs, self.inputs = weight.shape
        self.parameters = (tents.delays, weight)
        self.grid = Grid.of(tents.width)
        self.delays = tents.delays.detach().double()
        self.reach = int(float(self.delays.max()) + tents.width) + 1
        self.cell, self.part = self.grid.place(self.delays)
        self.farthest = int(self.cell.max()) + 1
        strength = weight.detach()
        places, heights = self.grid.line()
        self.heights = Heights(-places[-1], strength.new_tensor(heights[::-1]).unsqueeze(0))
        high = self.part.to(strength.dtype) * strength
        cells = torch.stack([self.cell, self.cell + 1]).long()
        strength, index = compact(torch.stack([strength - high, high]), cells)
        self.behind = CellReader(-index.transpose(1, 2), strength.transpose(1, 2))
        self.ahead = CellReader(-index, strength)

    def line(self, channels: int, chunk: int) -> Written:
        """Make an empty line of cells."""
        return Written(self.grid.phases, self.farthest, self.heights, (channels, chunk))

    def correlate(self, gradients: Tensor, rows: Tensor, start: int, stop: int) -> tuple[Tensor | None, ...]:
        overlap = Overlap(self, rows.device)
        line = self.line(self.outputs, gradients.shape[2])
        for row in range(stop - 1, max(start - self.reach, -1), -1):
            line.write(gradients, row, silent=row < start)
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
        self._add = implementation_of("tape_overlap", device)

    def add(self, line: Line, rows: Tensor, row: int) -> None:
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
        left, right = implementation_of("synapse_correlation", rows.device)(
            rows.permute(1, 2, 0).to(work), gradients.permute(1, 2, 0), index
        )
        return (right - left).double() / width**2
