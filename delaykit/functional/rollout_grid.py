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
from delaykit.functional.rollout_vector import LANES
from delaykit.functional.rollout_windows import deliver, padded, ring_kernels
from delaykit.functional.tents import Grid, Tents

LARGEST = 1 << 26  # numbers in all windows
SLACK = 32  # steps for which the windows of a forward pass need not be moved
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
        self.weights = weight - high, high

    def begin(self, steps: int, batch: int) -> None:
        kind = _Rows if self.grid.phases == 1 else _Ring
        self.forward = kind(self, batch)

    def current(self, t: int, x: Tensor) -> Tensor:
        return self.forward.deliver(t, x)

    def begin_backward(self, steps: int, batch: int) -> None:
        self.ring = _Ring(self, batch)
        self.on_node = self.part == 0
        kinds = 0 if self.inputs is None else 3 if self.on_node.any() else 2
        self.grads = self.weight.new_zeros(kinds, *self.weight.shape)

    def pull(self, t: int, g: Tensor) -> Tensor:
        x = g if self.inputs is None else self.inputs.spikes[t - 1] if t else self.inputs.start
        return self.ring.pull(t, g, x, self.grads)

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


class _Rows:
    """Windows of the rows of a batch, ``(batch, cell, post)``, which now and then move on; forwards."""

    def __init__(self, of: GridSynaptic, batch: int) -> None:
        self.post = len(of.weight)
        self.phases, self.first = of.grid.phases, (of.grid.reach + 1) * of.grid.phases
        self.ahead = of.mask + 1
        self.now = self.first - self.phases
        self.window = of.weight.new_zeros(batch, (self.first + self.ahead + SLACK * self.phases) * self.post)
        self.out = of.weight.new_empty(batch, self.post)
        place = of.cell * self.post + torch.arange(self.post, dtype=torch.int32).unsqueeze(1)
        synapses = (x.t().contiguous().view(-1).numpy() for x in (place, *of.weights))
        line, height = of.line
        self.arguments = self.window.numpy(), *synapses, of.whole, line * self.post, height

    def deliver(self, t: int, x: Tensor) -> Tensor:
        self.now += self.phases
        if (self.now + self.ahead) * self.post > self.window.shape[1]:
            self._move()
        deliver(self.now * self.post, *self.arguments, x.numpy(), self.out.numpy())
        return self.out

    def _move(self) -> None:
        """Bring the cells in use back to the start."""
        kept = self.window[:, (self.now - self.first) * self.post :].clone()
        self.window[:, : kept.shape[1]] = kept
        self.window[:, kept.shape[1] :] = 0
        self.now = self.first


class _Ring:
    """Windows of the postsynaptic neurons, rings ``(post, cell, batch)``; forwards or backwards."""

    def __init__(self, of: GridSynaptic, batch: int) -> None:
        post, pre = of.weight.shape
        self.grid, self.mask, self.whole, self.width = of.grid, of.mask, of.whole, padded(batch)
        self.kernels = ring_kernels(4 * LANES if self.width % (4 * LANES) == 0 else LANES)
        # tensors, not arrays, because they are aligned
        window = of.weight.new_zeros(post * (of.mask + 1) * self.width).numpy()
        scratch = (of.weight.new_zeros(pre * self.width).numpy() for _ in range(2))
        synapses = of.cell.numpy(), *(x.contiguous().numpy() for x in of.weights)
        self.arguments = window, *synapses, *of.line, *scratch
        self.out = of.weight.new_empty(batch, post)

    def _now(self, t: int, opening: int) -> tuple[int, ...]:
        """Place step ``t`` in the ring; the cells of the step ``opening`` begin anew."""
        phases = self.grid.phases
        return t * phases, self.mask, opening * phases, phases, self.width

    def deliver(self, t: int, x: Tensor) -> Tensor:
        farthest = t + (self.mask + 1) // self.grid.phases - self.grid.reach - 2
        self.kernels[0](self._now(t, farthest), *self.arguments, x.numpy(), self.out.numpy())
        return self.out

    def pull(self, t: int, g: Tensor, x: Tensor, grads: Tensor) -> Tensor:
        ring = self._now(t, t - self.grid.reach - 1)
        given = self.whole, g.numpy(), x.numpy(), grads.numpy()
        self.kernels[1](ring, *self.arguments, *given, self.out.numpy())
        return self.out
