"""The recurrent connection of a rollout whose synapses have triangles of one width: two cells a synapse.

Forwards a spike falls into two cells, and the current reads the triangles of the cells around now; backwards is the
same upside down. :mod:`delaykit.functional.tents` says why this is exact, whatever the delays and the spread.

The gradient of a delay is the slope between its two cells. On a node it is, as ``(s - |tau - d|).clamp(min=0)`` has
it, the mean of the slopes to both sides and half the gradient under either end of the triangle that is an integer.
"""

from __future__ import annotations

import torch
from torch import Tensor

from delaykit.functional.rollout_connection import Connection
from delaykit.functional.rollout_correlation import Inputs, recurrent_correlation
from delaykit.functional.rollout_delay import Sparse
from delaykit.functional.rollout_windows import padded, window_kernels
from delaykit.functional.tents import Grid, Tents

LARGEST = 1 << 26  # numbers in all windows
NARROW_LINE = 64  # cells that a line may have however few the neurons


def grid_for(tents: Tents, currents: Tensor) -> Grid | None:
    """Return the grid for a rollout of these currents, None where listing taps serves better."""
    steps, batch, neurons = currents.shape
    grid = Grid.of(tents.width)
    if tents.shape != (neurons, neurons) or neurons == 1 or not grid.is_wide_enough(currents.dtype):
        return None
    widest = len(grid.line()[0])  # work per neuron and step, where the synapses have 2 each
    numbers = _cells(grid, tents.delays.detach(), steps) * batch * neurons
    return grid if widest <= max(2 * neurons, NARROW_LINE) and numbers <= LARGEST else None


def _cells(grid: Grid, delays: Tensor, steps: int) -> int:
    """Number of cells in a window, a power of two: those that the line reaches and those of the longest delay."""
    longest = min(int(delays.max()), steps + grid.reach)
    return 1 << (grid.phases * (grid.reach + max(longest, grid.reach) + 4) - 1).bit_length()


class GridSynaptic(Connection):
    """One delay for each synapse, triangles of one width; ``inputs`` is to be set before the backward steps."""

    inputs: Inputs | None = None

    def __init__(self, weight: Tensor, delays: Tensor, grid: Grid, steps: int) -> None:
        super().__init__(weight, None, steps, True)
        self.grid, self.mask = grid, _cells(grid, delays, steps) - 1
        # what would arrive after the end arrives nowhere, and needs no cells of its own
        self.delays = delays.to(torch.float64).clamp(max=steps + grid.reach)
        self.cell, self.part = grid.place(self.delays)
        self.whole = not self.part.any()
        high = self.part.to(weight.dtype) * weight
        places, heights = grid.line()
        self.line = torch.tensor(places).numpy(), torch.tensor(heights, dtype=weight.dtype).numpy()
        self.synapses = self.cell.numpy(), (weight - high).numpy(), high.numpy(), self.whole

    def _open(self, batch: int) -> None:
        post, pre = self.weight.shape
        self.width = padded(batch)
        self.out = self.weight.new_empty(batch, pre)
        # tensors, not arrays, because they are aligned
        self.window = self.weight.new_zeros(post * (self.mask + 1) * self.width).numpy()
        self.scratch = tuple(self.weight.new_zeros(pre * self.width).numpy() for _ in range(2))
        self.kernels = window_kernels(self.width)

    def _ring(self, t: int, opening: int) -> tuple[int, ...]:
        """Give the numbers that ``deliver`` asks for; cells ``opening`` steps from now begin anew."""
        return t * self.grid.phases, self.mask, (t + opening) * self.grid.phases, self.grid.phases, self.width

    def begin(self, steps: int, batch: int) -> None:
        self._open(batch)
        self.ahead = (self.mask + 1) // self.grid.phases - self.grid.reach - 2

    def current(self, t: int, x: Tensor) -> Tensor:
        ring, out = self._ring(t, self.ahead), self.out.numpy()
        self.kernels[0](ring, self.window, *self.synapses, x.numpy(), *self.line, *self.scratch, out)
        return self.out

    def begin_backward(self, steps: int, batch: int) -> None:
        self._open(batch)
        self.on_node = self.part == 0
        kinds = 0 if self.inputs is None else 3 if self.on_node.any() else 2
        self.grads = self.weight.new_zeros(kinds, *self.weight.shape)

    def pull(self, t: int, g: Tensor) -> Tensor:
        ring, out, grads = self._ring(t, -self.grid.reach - 1), self.out.numpy(), self.grads.numpy()
        x = g if self.inputs is None else self.inputs.spikes[t - 1] if t else self.inputs.start
        self.kernels[1](ring, self.window, *self.synapses, g.numpy(), *self.line, *self.scratch, x.numpy(), grads, out)
        return self.out

    def gradients(
        self, x: Inputs, delayed: Tensor | None, g: Tensor, want: tuple[bool, bool]
    ) -> tuple[Tensor | None, Tensor | None]:
        low, high = self.grads[0], self.grads[1]
        rise = (high - low).double()
        grad_weight = (low + self.part * rise).to(self.weight.dtype) if want[0] else None
        return grad_weight, (self.weight * self._slope(rise, x, g) if want[1] else None)

    def _slope(self, rise: Tensor, x: Inputs, g: Tensor) -> Tensor:
        """Gradient of every delay at weight 1."""
        slope = rise / self.grid.gaps(self.cell)
        if len(self.grads) < 3:
            return slope
        before = (self.grads[0] - self.grads[2]).double() / self.grid.gaps(self.cell - 1)
        return torch.where(self.on_node, (slope + before + self._ends(x, g)) / 2, slope)

    def _ends(self, x: Inputs, g: Tensor) -> Tensor:
        """Gradient under the right end of each triangle less that under the left, where these are integers."""
        ends = torch.stack([self.delays - self.grid.width, self.delays + self.grid.width])
        hit = (ends == ends.round()) & (ends >= 0)
        if not hit.any():
            return torch.zeros_like(self.delays)
        index = torch.where(hit, ends, torch.full_like(ends, len(g))).long()
        rows = g.transpose(1, 2).contiguous()
        left, right = recurrent_correlation(True, x, rows, Sparse(index, ends, 0), self.compiled)
        return (right - left).double() / self.grid.width**2
