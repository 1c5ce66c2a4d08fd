r"""A triangle for every delay, all of one width: what a rollout can run without listing taps.

``h(tau - d) = max(0, s - |tau - d|) / s^2`` at integer ``tau >= 0``

For a fixed ``tau`` this is piecewise linear in ``d``, and bends only where d, d - s or d + s is an integer. With
``g = s - floor(s)`` the bends lie at the nodes 0, g and 1 - g of every step, so that between two neighbouring nodes
linear interpolation is *exact*: a synapse of any real delay and any spread has two numbers, and the triangles of the
nodes, three a step at most, are the same for all synapses. Many synapses thus share the work of one triangle.
"""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from delaykit.functional.second_differences import triangle_taps
from delaykit.functional.taps import Taps

NARROWEST = {torch.float32: 1e-3, torch.float64: 1e-7}  # a slope over a smaller distance would lose half its digits


class ListsTaps(Protocol):
    """A shape of arrival, as far as tents must know it: :class:`~delaykit.arrivals.Kernel`."""

    def taps(self, delays: Tensor) -> Taps:
        """List the response of delays ``(A, B)`` as taps."""


class Tents(NamedTuple):
    """Hold delays, the width of the triangle around each of them, and the kernel that lists them as taps.

    Args:
        delays: ``(A, B)``, steps, >= 0; ``A`` is 1 or post, ``B`` is 1 or pre.
        width: half-width s of the triangle, in steps, >= 1.
        kernel: the kernel whose response this is.
        epsilon: None where the response is that of above; else its heights are divided by their sum plus this.
        factor: of the response of every synapse, ``(A, B)``, without a gradient; None: 1 everywhere. 0 cuts a synapse.

    Example:
        >>> from delaykit.arrivals import Triangle
        >>> tents = Triangle(1.0).tents(torch.tensor([[2.0]]))
        >>> tents.width, tents.memory()
        (2.0, 4)
    """

    delays: Tensor
    width: float
    kernel: ListsTaps
    epsilon: float | None = None
    factor: Tensor | None = None

    def taps(self) -> Taps:
        """List the same response as taps."""
        return self.kernel.taps(self.delays)

    def memory(self) -> int:
        """Count the newest inputs a reader must remember: 1 + the largest tau with a response. Host sync."""
        return math.ceil(float(self.delays.detach().max()) + self.width) if self.delays.numel() else 0

    def scale(self) -> Tensor | None:
        """Return what ``h`` is multiplied by, ``(A, B)``, differentiable, float64 if normalized; None: nothing."""
        if self.epsilon is None:
            return self.factor
        with torch.no_grad():
            delays = self.delays.double()
            step, width = delays.floor(), self.width
            part = delays - step
            before, after = width - part, width - 1 + part  # heights at the steps to both sides
            left, right = torch.minimum(before.floor(), step) + 1, after.floor() + 1  # numbers of steps, ends included
            total = left * before - left * (left - 1) / 2 + right * after - right * (right - 1) / 2
            slope = right - left + (part == 0)
        scale = self.width**2 / (total + slope * (self.delays - self.delays.detach()) + self.epsilon)
        return scale if self.factor is None else scale * self.factor

    @property
    def shape(self) -> tuple[int, int]:
        """Shape ``(A, B)`` of the delays."""
        return self.delays.shape[0], self.delays.shape[1]


class OwnTents(NamedTuple):
    """Hold delays, and a width of its own for the triangles of every presynaptic neuron, which may learn.

    Args:
        delays: ``(post, pre)``, steps, >= 0.
        widths: ``(1, pre)``, half-widths s in steps, >= 1, of responses ``max(0, s - |tau - d|) / s^2``.

    Example:
        >>> tents = OwnTents(torch.tensor([[2.0, 0.0], [1.0, 4.0]]), torch.tensor([[2.0, 3.5]]))
        >>> tents.memory(), [[round(x, 6) for x in row] for row in tents.nodes().tolist()]
        (8, [[0.0, 0.0, 1.0], [0.0, 0.5, 0.5]])
    """

    delays: Tensor
    widths: Tensor

    def taps(self) -> Taps:
        """List the same response as taps."""
        delays, widths = torch.broadcast_tensors(self.delays.double(), self.widths.double())
        return triangle_taps(delays, widths, None)

    def memory(self) -> int:
        """Count the newest inputs a reader must remember: 1 + the largest tau with a response. Host sync."""
        return math.ceil(float((self.delays.detach() + self.widths.detach()).max())) if self.delays.numel() else 0

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of the delays."""
        return self.delays.shape[0], self.delays.shape[1]

    def nodes(self) -> Tensor:
        """Return where within a step the triangles of each neuron bend, ``(pre, 3)``, float64, ascending from 0.

        Where a width is whole, or whole but for a half, two of them are the same.
        """
        part = self.widths.detach().double().flatten()
        part = part - part.floor()
        return torch.stack([torch.zeros_like(part), torch.minimum(part, 1 - part), torch.maximum(part, 1 - part)], 1)

    def place(self) -> tuple[Tensor, Tensor]:
        """Find the cell below each delay, of three a step, int64, and how far the delay is on the way to the next."""
        delays = self.delays.detach().double()
        step, nodes = delays.floor(), self.nodes()
        _, second, third = nodes.unbind(1)
        part = delays - step
        phase = (part >= second).long() + (part >= third)
        ends = torch.cat([nodes, second.new_ones(len(second), 1)], 1)
        neuron = torch.arange(len(second), device=phase.device).expand_as(phase)
        low, high = ends[neuron, phase], ends[neuron, phase + 1]
        return 3 * step.long() + phase, (part - low) / (high - low)

    def heights(self, cells: Tensor) -> Tensor:
        """Return what an input is at a delay's cell, so many cells after the first of a step: ``(pre, cell)``, float64.

        Args:
            cells: whole numbers, three a step; the delays of cell -c lie c cells back.
        """
        width = self.widths.detach().double().view(-1, 1)
        step = -((-cells) // 3)
        away = (step - self.nodes()[:, 3 * step - cells]).abs()
        return (width - away).clamp(min=0) / width**2


class Grid(NamedTuple):
    """The nodes between which triangles of width ``width`` interpolate linearly; cell c is node ``c % phases``.

    Args:
        width: half-width s of the triangle, in steps, >= 1.
        nodes: their places within a step: ascending, from 0.0; at last 1.0, the first of the next step.

    Example:
        >>> Grid.of(2.25).nodes
        (0.0, 0.25, 0.75, 1.0)
    """

    width: float
    nodes: tuple[float, ...]

    @classmethod
    def of(cls, width: float) -> Grid:
        """Place the nodes for a width."""
        part = width - math.floor(width)
        return cls(width, tuple(sorted({0.0, part, 1.0 - part, 1.0})))

    @property
    def phases(self) -> int:
        """Number of cells a step: 1, 2 or 3."""
        return len(self.nodes) - 1

    @property
    def reach(self) -> int:
        """Number of steps that a triangle extends to either side, at most."""
        return math.ceil(self.width)

    def is_wide_enough(self, dtype: torch.dtype) -> bool:
        """Tell whether a slope between two neighbouring nodes is as exact as a slope should be."""
        return min(b - a for a, b in zip(self.nodes, self.nodes[1:], strict=False)) >= NARROWEST[dtype]

    def line(self) -> tuple[list[int], list[float]]:
        """List the cells, relative to the first cell of a step, whose triangles reach that step, and their heights."""
        places, heights = [], []
        for cell in range(-(self.reach + 1) * self.phases, (self.reach + 1) * self.phases):
            height = self.width - abs(cell // self.phases + self.nodes[cell % self.phases])
            if height > 0:
                places.append(cell)
                heights.append(height / self.width**2)
        return places, heights

    def place(self, delays: Tensor) -> tuple[Tensor, Tensor]:
        """Find the cell below each delay, int32, and how far the delay lies on the way to the next, float64 in [0, 1).

        Args:
            delays: float64, any shape, steps, >= 0.
        """
        step = delays.floor()
        part = delays - step
        if self.phases == 1:
            return step.to(torch.int32), part
        low, gap, phase = torch.zeros_like(part), torch.full_like(part, self.nodes[1]), torch.zeros_like(part)
        for n, node in enumerate(self.nodes[1:-1], 1):
            past = part >= node
            low.masked_fill_(past, node)
            gap.masked_fill_(past, self.nodes[n + 1] - node)
            phase.masked_fill_(past, n)
        return (step * self.phases + phase).to(torch.int32), (part - low) / gap

    def gaps(self, cell: Tensor) -> Tensor:
        """Return the distance from each cell's node to the next, float64."""
        gaps = [b - a for a, b in zip(self.nodes, self.nodes[1:], strict=False)]
        return torch.tensor(gaps, dtype=torch.float64, device=cell.device)[cell % self.phases]
