"""Triangles whose width belongs to the presynaptic neuron, and may learn, step by step: two numbers a synapse.

Every input writes the triangle of its own neuron into a line of cells, three a step, and a synapse reads the two cells
around its delay, as in :mod:`~delaykit.functional.step_tape.cells.tents`. Backwards the triangles are still those of
the inputs: each synapse delivers its output's gradient into two cells of its input's line, where the neuron's triangle
collects it. Gradients of delays, widths and weights are sums over lags, once after the loop.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from delaykit.functional.dispatch import implementation_of
from delaykit.functional.step_tape.cells.lagged_products import lagged_products
from delaykit.functional.step_tape.cells.lines import Heights, Line, Written
from delaykit.functional.step_tape.cells.reading import CellFilter, CellReader
from delaykit.functional.step_tape.filters import aligned
from delaykit.functional.tents import OwnTents

PHASES = 3


def fits(tents: OwnTents, weight: Tensor) -> bool:
    """Tell whether two cells a synapse serve a connection better than its taps."""
    if tents.shape != weight.shape or min(weight.shape) < 2:
        return False
    if not bool(tents.delays.any()) and bool((tents.widths == 1).all()):
        return False  # nothing is delayed, and taps give the bare product to the bit
    return weight.dtype in (torch.float32, torch.float64)


class SpreadFilter(CellFilter):
    """Delay and weigh every synapse, its spikes spread over a triangle of the width of their neuron.

    Args:
        tents: a delay for each synapse and a width for each input.
        weight: ``(post, pre)``.
    """

    operators = ("tape_tents", "tape_pending", "tape_synapses", "tape_deliver", "tape_heights")

    def __init__(self, tents: OwnTents, weight: Tensor) -> None:
        self.outputs, self.inputs = weight.shape
        self.parameters = (tents.delays, tents.widths, weight)
        self.reach = math.floor(float((tents.delays.detach().double() + tents.widths.detach().double()).max())) + 1
        cell, part = tents.place()
        self.farthest = int(cell.max()) + 1
        high = part.to(weight.dtype) * weight.detach()
        strength = torch.stack([weight.detach() - high, high])
        place = torch.stack([cell, cell + 1])
        self.behind = CellReader(-place.transpose(1, 2), strength.transpose(1, 2))
        # backwards: (input, output), the two cells of a synapse side by side
        self.delivered = cell.t().int().contiguous(), strength.permute(2, 1, 0).contiguous()
        widest = PHASES * (math.ceil(float(tents.widths.detach().max())) + 1)
        first = -min(self.farthest, widest)
        heights = tents.heights(torch.arange(first, widest + 1, device=weight.device)).to(weight.dtype)
        self.heights = Heights(first, heights.contiguous())

    def line(self, channels: int, chunk: int) -> Written:
        """Make an empty line of cells for the inputs."""
        return Written(PHASES, self.farthest, self.heights, (channels, chunk))

    def adjoint(self, chunk: int) -> SpreadAdjoint:
        return SpreadAdjoint(self, chunk)

    def correlate(self, gradients: Tensor, rows: Tensor, start: int, stop: int) -> tuple[Tensor | None, ...]:
        seen, series = aligned(gradients, rows, start, stop, self.reach)
        found = self.slopes(seen[:, start - stop :], series)
        return tuple(g if p.requires_grad else None for p, g in zip(self.parameters, found, strict=True))

    def slopes(self, gradients: Tensor, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Give the gradients of delays, widths and weight, from output gradients, and inputs that may begin earlier."""
        delays, widths, weight = (p.detach() for p in self.parameters)
        found = torch.empty_like(delays), torch.zeros_like(widths, dtype=torch.float64), torch.empty_like(weight)
        width = widths.double()
        tau = torch.arange(self.reach, dtype=torch.float64, device=rows.device).view(-1, 1, 1)
        for block, products in lagged_products(rows, gradients, self.reach):
            away = tau - delays[block].double()
            rise = width - away.abs()
            inside = (rise >= 0).to(products.dtype)  # as (s - |u|).clamp(min=0) has it where it is 0
            under = products * inside
            value = (under * rise.to(under.dtype)).sum(0) / width**2
            slope = (under * away.sign().to(under.dtype)).sum(0) / width**2
            weigh = weight[block]
            found[0][block], found[2][block] = weigh * slope, value
            found[1].add_((weigh * (under.sum(0) / width**2 - 2 * value / width)).sum(0, keepdim=True))
        return found[0], found[1].to(widths.dtype), found[2]


class SpreadAdjoint:
    """A line of the inputs' cells, into which outputs deliver their gradients, last step first.

    Args:
        filter: of the connection.
        chunk: rows' last size.
    """

    def __init__(self, filter: SpreadFilter, chunk: int) -> None:
        self.filter, self.heights = filter, filter.heights.mirrored()
        heights = self.heights
        shape = (filter.inputs, chunk)
        self.line = Line(PHASES, max(-heights.first, 0), max(filter.farthest, heights.last), heights.values, shape)
        device = heights.values.device
        self._deliver = implementation_of("tape_deliver", device)
        self._collect = implementation_of("tape_heights", device)
        self._sums = heights.values.new_empty(filter.inputs, chunk)
        self._kept: dict[str, Any] = {}

    def write(self, source: Tensor, row: int, silent: bool = False) -> None:
        """Go back by a step, and deliver the output gradients ``source[:, row]``, unless they are known to be zero."""
        self.line.advance()
        if not silent:
            self._deliver(self.line.rows, self.line.now, *self.filter.delivered, source, row, self._kept)

    def read(self, out: Tensor) -> None:
        """Write the input gradient of this step to ``out (inputs, batch, space)``."""
        self._collect(self.line.rows, self.line.now + self.heights.first, self.heights.values, self._sums)
        out.copy_(self._sums.view(out.shape))
