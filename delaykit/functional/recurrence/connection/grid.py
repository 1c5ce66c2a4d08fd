"""The recurrent connection of a rollout whose synapses have triangles of one width: two cells a synapse.

Forwards a spike falls into two cells, and the current reads the triangles of the cells around now; backwards is the
same upside down. :mod:`delaykit.functional.tents` says why this is exact, whatever the delays and the spread.

The gradient of a delay is the slope between its two cells. On a node it is, as ``(s - |tau - d|).clamp(min=0)`` has
it, the mean of the slopes to both sides and half the gradient under either end of the triangle that is an integer.
"""

from __future__ import annotations

import collections
from collections.abc import Callable
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

from delaykit.functional.recurrence.connection.base import Connect, Inputs, RecurrentConnection, SparseTaps
from delaykit.functional.recurrence.connection.gradients import input_correlation
from delaykit.functional.recurrence.connection.reading_ahead import Ahead
from delaykit.functional.recurrence.connection.two_step_gradients import between
from delaykit.functional.tents import Grid, Tents

LARGEST = 1 << 26  # numbers in all windows
SLACK = 32  # steps for which the windows of a forward pass need not be moved
Correlate = Callable[[Tensor, Tensor, SparseTaps, int], Tensor]
NARROW_LINE = 64  # cells that a line may have however few the neurons
MOST_NEAR = 0.055  # share of inputs that are not 0 up to which it is faster to deliver each, from the second cache
MOST_FAR = 0.015  # the same where the synapses do not lie there
NEAR_BYTES = 1 << 20
FEW = 0.025  # share of inputs that are not 0 up to which sums over their events are faster
SINGLE = 64  # synapses that are summed up one by one
FEW_ROWS = 16  # of a batch: reading ahead takes as long for fewer


def tents_connection(tents: Tents, currents: Tensor, correlate: Correlate, kernels: ModuleType) -> Connect | None:
    """Return what connects through two cells a synapse, None where listing taps serves better.

    ``correlate`` is the correlation of a backend for each synapse, for the ends of triangles, and ``kernels`` are its
    compiled steps, :mod:`delaykit.functional.llvm.recurrence`.
    """
    grid = grid_for(tents, currents)
    if grid is None:
        return None
    return lambda weight, index, delays, steps: GridSynaptic(weight, delays, grid, steps, correlate, kernels)


def grid_for(tents: Tents, currents: Tensor) -> Grid | None:
    """Return the grid for a rollout of these currents, None where listing taps serves better."""
    steps, batch, neurons = currents.shape
    grid = Grid.of(tents.width)
    if tents.shape != (neurons, neurons) or neurons == 1 or not grid.is_wide_enough(currents.dtype):
        return None
    widest = len(grid.line()[0])  # work per neuron and step, where the synapses have 2 each
    numbers = _cells(grid, tents.delays.detach(), steps) * batch * neurons
    return grid if widest <= max(2 * neurons, NARROW_LINE) and numbers <= LARGEST else None


def ringed(
    delays: Tensor, weight: Tensor, grid: Grid, steps: int, batch: int, correlate: Correlate, kernels: ModuleType
) -> GridSynaptic | None:
    """Return what connects any two populations, delivering under masks, None where it would take too much memory.

    Args:
        delays: ``(post, pre)``.
        weight: ``(post, pre)``.
        grid: of their triangles.
        steps: of the sequence.
        batch: rows.
        correlate: see :func:`tents_connection`, as are kernels.
        kernels: the compiled steps.
    """
    if _cells(grid, delays, steps) * batch * len(weight) > LARGEST:
        return None
    found = GridSynaptic(weight, delays, grid, steps, correlate, kernels)
    found.masks = True
    return found


def _cells(grid: Grid, delays: Tensor, steps: int) -> int:
    """Number of cells in a window, a power of two: those that the line reaches and those of the longest delay."""
    longest = min(int(delays.max()), steps + grid.reach)
    return 1 << (grid.phases * (grid.reach + max(longest, grid.reach) + 4) - 1).bit_length()


class GridSynaptic(RecurrentConnection):
    """One delay for each synapse, triangles of one width."""

    masks = False  # whether to go by windows of postsynaptic neurons also where spikes are few and phases one

    def __init__(
        self, weight: Tensor, delays: Tensor, grid: Grid, steps: int, correlate: Correlate, kernels: ModuleType
    ) -> None:
        self.weight, self.correlate, self.kernels = weight, correlate, kernels
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
        if self.grid.width == 1:
            self.forward: _Falling | _Rows | _Ring = _Falling(self, steps, batch)
        else:
            self.forward = (_Rows if self.grid.phases == 1 and not self.masks else _Ring)(self, batch)

    def current(self, t: int, x: Tensor) -> Tensor:
        return self.forward.deliver(t, x)

    def begin_backward(self, steps: int, batch: int) -> None:
        self.on_node = self.part == 0
        if self.grid.width == 1:
            self.ahead = Ahead(self.kernels, self.cell.t(), [x.t() for x in self.weights], steps, batch)
            return
        kinds = 0 if self.inputs is None else 3 if self.on_node.any() else 2
        self.grads = self.weight.new_zeros(kinds, *self.weight.shape)
        self.ring = _Ring(self, batch)

    def pull(self, t: int, grad: Tensor) -> Tensor:
        if self.grid.width == 1:
            return self.ahead.read(grad)
        x = grad if self.inputs is None else self.inputs.at(t)
        return self.ring.pull(t, grad, x, self.grads)

    def gradients(
        self, x: Inputs, delayed: Tensor | None, grad: Tensor, want: tuple[bool, bool]
    ) -> tuple[Tensor | None, Tensor | None]:
        if self.grid.width == 1:
            return self._gradients_between_steps(x, grad, want)
        low, high = self.grads[0], self.grads[1]
        rise = (high - low).double()
        grad_weight = (low + self.part * rise).to(self.weight.dtype) if want[0] else None
        return grad_weight, (self.weight * self._slope(rise, x, grad) if want[1] else None)

    def _gradients_between_steps(
        self, x: Inputs, grad: Tensor, want: tuple[bool, bool]
    ) -> tuple[Tensor | None, Tensor | None]:
        """Do the same where nothing is smeared: cells are steps, and what arrived at them is all there after the loop.

        The slope at a whole delay is that between the steps to both sides of it.
        """
        low, high = self._correlations(x, grad, self.cell, 2)
        grad_weight = torch.lerp(low, high, self.part.to(low.dtype)) if want[0] else None
        if not want[1]:
            return grad_weight, None
        slope = high - low
        post, pre = self.on_node.nonzero(as_tuple=True)
        if len(post) > SINGLE:
            before = self._correlations(x, grad, self.cell - 1, 1)[0]
            slope = torch.where(self.on_node, high - before, slope)
        else:
            for i, j in zip(post.tolist(), pre.tolist(), strict=True):
                slope[i, j] = high[i, j] - self._correlation(x, grad, i, j, int(self.cell[i, j]) - 1)
        return grad_weight, self.weight * slope

    def _correlations(self, x: Inputs, grad: Tensor, cell: Tensor, kinds: int) -> Tensor:
        """Sum up inputs times the gradients at their cells, and perhaps at the next: ``(kinds, post, pre)``.

        Nothing arrives at a cell less than 0.
        """
        cell = torch.where(cell < 0, len(grad), cell)
        if torch.count_nonzero(x.spikes) <= FEW * x.spikes.numel():
            index = torch.stack([cell, cell + 1][:kinds])
            rows = grad.transpose(1, 2).contiguous()
            return input_correlation(self.correlate, x, rows, SparseTaps(index, index, 0))
        begun = bool(x.start.any())
        early = torch.cat([x.start.unsqueeze(0), x.spikes[:-1]]) if begun else x.spikes[:-1]
        return between(self.kernels, early, grad if begun else grad[1:], cell)[:kinds]

    def _correlation(self, x: Inputs, grad: Tensor, post: int, pre: int, late: int) -> Tensor:
        """Do the same for one synapse and step."""
        if not 0 <= late < len(grad):
            return grad.new_zeros(())
        last = len(grad) - late - 1
        return x.start[:, pre] @ grad[late, :, post] + (x.spikes[:last, :, pre] * grad[late + 1 :, :, post]).sum()

    def _slope(self, rise: Tensor, x: Inputs, grad: Tensor) -> Tensor:
        """Gradient of every delay at weight 1."""
        slope = rise / self.grid.gaps(self.cell)
        if len(self.grads) < 3:
            return slope
        before = (self.grads[0] - self.grads[2]).double() / self.grid.gaps(self.cell - 1)
        return torch.where(self.on_node, (slope + before + self._ends(x, grad)) / 2, slope)

    def _ends(self, x: Inputs, grad: Tensor) -> Tensor:
        """Gradient under the right end of each triangle less that under the left, where these are integers."""
        ends = torch.stack([self.delays - self.grid.width, self.delays + self.grid.width])
        hit = (ends == ends.round()) & (ends >= 0)
        if not hit.any():
            return torch.zeros_like(self.delays)
        index = torch.where(hit, ends, torch.full_like(ends, len(grad))).long()
        rows = grad.transpose(1, 2).contiguous()
        left, right = input_correlation(self.correlate, x, rows, SparseTaps(index, ends, 0))
        return (right - left).double() / self.grid.width**2


class _Falling:
    """A spike falls into one cell or two, and is not smeared: few spikes are delivered, many read from the past."""

    def __init__(self, of: GridSynaptic, steps: int, batch: int) -> None:
        self.of, self.steps, self.batch, self.lately = of, steps, batch, 0.0
        near = sum(x.nbytes for x in (of.cell, *of.weights)) <= NEAR_BYTES
        self.most = (MOST_NEAR if near else MOST_FAR) * of.weight.shape[1] * max(batch, FEW_ROWS)
        self.most *= 1.15 if of.whole else 1  # each falls into one cell, not two, and is also read from one
        self.rows, self.past = _Rows(of, batch), collections.deque[Tensor](maxlen=int(of.cell.max()) + 1)
        self.ahead: Ahead | None = None

    def deliver(self, t: int, x: Tensor) -> Tensor:
        if self.ahead is None:
            used = self.of.kernels.count_used(x.reshape(-1).numpy())
            self.lately += (used - self.lately) / 8  # a mean over about eight steps
            if max(self.lately, used / 2) <= self.most:
                self.past.append(x)  # spikes of a rollout, which nobody writes to again
                return self.rows.deliver(t, x)
            # for good: rows do not learn of what comes from now on
            self.ahead = Ahead(self.of.kernels, self.of.cell, self.of.weights, self.steps, self.batch)
            self.ahead.follow(list(self.past))
        return self.ahead.read(x)


class _Rows:
    """Windows of the rows of a batch, ``(batch, cell, post)``, which now and then move on; forwards."""

    def __init__(self, of: GridSynaptic, batch: int) -> None:
        self.post, self.kernel = len(of.weight), of.kernels.deliver
        self.phases, self.first = of.grid.phases, (of.grid.reach + 1) * of.grid.phases
        self.ahead = max(int(of.cell.max()) + 2, self.first)
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
        self.kernel(self.now * self.post, *self.arguments, x.numpy(), self.out.numpy())
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
        self.grid, self.mask, self.whole, self.width = of.grid, of.mask, of.whole, of.kernels.padded(batch)
        wide = 4 * of.kernels.LANES
        self.kernels = of.kernels.ring_kernels(wide if self.width % wide == 0 else of.kernels.LANES)
        # tensors, not arrays, because they are aligned
        window = of.weight.new_zeros(post * (of.mask + 1) * self.width).numpy()
        self.rows, self.sums = (of.weight.new_zeros(max(post, pre) * self.width).numpy() for _ in range(2))
        self.bits = np.zeros(pre * self.width // 8, np.uint8)
        synapses = of.cell.numpy(), *(x.contiguous().numpy() for x in of.weights)
        self.arguments = window, *synapses, *of.line
        self.out, self.back = (of.weight.new_empty(batch, size) for size in (post, pre))

    def _now(self, t: int, opening: int) -> tuple[int, ...]:
        """Place step ``t`` in the ring; the cells of the step ``opening`` begin anew."""
        phases = self.grid.phases
        return t * phases, self.mask, opening * phases, phases, self.width

    def deliver(self, t: int, x: Tensor) -> Tensor:
        farthest = t + (self.mask + 1) // self.grid.phases - self.grid.reach - 2
        self.kernels[0](self._now(t, farthest), *self.arguments, self.bits, self.sums, x.numpy(), self.out.numpy())
        return self.out

    def pull(self, t: int, grad: Tensor, x: Tensor, grads: Tensor) -> Tensor:
        ring = self._now(t, t - self.grid.reach - 1)
        given = self.whole, grad.numpy(), x.numpy(), grads.numpy()
        self.kernels[1](ring, *self.arguments, self.bits, self.sums, self.rows, *given, self.back.numpy())
        return self.back
