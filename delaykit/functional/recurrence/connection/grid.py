"""The recurrent connection of a rollout whose synapses have triangles of one width: two cells a synapse.

Forwards a spike falls into two cells, and the current reads the triangles of the cells around now; backwards is the
same upside down. :mod:`delaykit.functional.tents` says why this is exact, whatever the delays and the spread.

The gradient of a delay is the slope between its two cells. On a node it is, as ``(s - |tau - d|).clamp(min=0)`` has
it, the mean of the slopes to both sides and half the gradient under either end of the triangle that is an integer.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from delaykit.functional.recurrence.connection.base import Connect, Inputs, RecurrentConnection, SparseTaps
from delaykit.functional.recurrence.connection.gradients import input_correlation
from delaykit.functional.tents import Grid, Tents

LARGEST = 1 << 26  # numbers in all windows
SLACK = 32  # steps for which the windows of a forward pass need not be moved
Correlate = Callable[[Tensor, Tensor, SparseTaps, int], Tensor]
NARROW_LINE = 64  # cells that a line may have however few the neurons


def tents_connection(
    tents: Tents, currents: Tensor, correlate: Correlate, kernels: ModuleType
) -> Connect | None:
    """Return what connects through two cells a synapse, None where listing taps serves better.

    ``correlate`` is the correlation of a backend for each synapse, for the ends of triangles, and ``kernels`` are its
    compiled steps, :mod:`delaykit.functional.llvm.recurrence.windows`.
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
        self.ring = _Ring(self, batch)
        self.on_node = self.part == 0
        kinds = 0 if self.inputs is None else 3 if self.on_node.any() else 2
        self.grads = self.weight.new_zeros(kinds, *self.weight.shape)

    def pull(self, t: int, grad: Tensor) -> Tensor:
        x = grad if self.inputs is None else self.inputs.at(t)
        return self.ring.pull(t, grad, x, self.grads)

    def gradients(
        self, x: Inputs, delayed: Tensor | None, grad: Tensor, want: tuple[bool, bool]
    ) -> tuple[Tensor | None, Tensor | None]:
        low, high = self.grads[0], self.grads[1]
        rise = (high - low).double()
        grad_weight = (low + self.part * rise).to(self.weight.dtype) if want[0] else None
        return grad_weight, (self.weight * self._slope(rise, x, grad) if want[1] else None)

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
    """A spike falls into one cell or two, and is not smeared: spikes are delivered, or many of them read as bits."""

    def __init__(self, of: GridSynaptic, steps: int, batch: int) -> None:
        self.of, self.batch, self.lately = of, batch, 0.0
        self.rows: _Rows | None = _Rows(of, batch)
        self.bits: _Bits | None = _Bits(of, steps, batch)

    def deliver(self, t: int, x: Tensor) -> Tensor:
        if self.bits is not None:
            spikes, plain = self.bits.add(t, x)
            self.lately += (spikes / self.bits.words - self.lately) / 8  # a mean over about eight steps
            if not plain:
                self._leave(t)
            elif self.rows is None or self.lately > self.of.kernels.MOST_DELIVERED:
                self.rows = None  # for good: it does not know what comes from now on
                return self.bits.read(t)
        assert self.rows is not None
        return self.rows.deliver(t, x)

    def _leave(self, t: int) -> None:
        """Some spike is no 1, which bits cannot tell: windows learn all that was before, and go on."""
        assert self.bits is not None
        if self.rows is None:
            self.rows = _Rows(self.of, self.batch)
            for early in range(t):
                self.rows.deliver(early, self.bits.spikes(early))
        self.bits = None


class _Bits:
    """The spikes so far, 32 rows of the batch a word, ``(time, pre, word)``: a synapse reads one or two a step."""

    def __init__(self, of: GridSynaptic, steps: int, batch: int) -> None:
        self.of, self.batch = of, batch
        post, pre = of.weight.shape
        self.kernels = of.kernels
        self.words = pre * -(-batch // of.kernels.WORD)
        self.past = int(of.cell.max()) + 2
        self.history = np.zeros((self.past + steps) * self.words, np.uint32)
        self.out = of.weight.new_empty(batch, post)

    @functools.cached_property
    def entries(self) -> tuple[Any, ...]:
        """First of a neuron's entries; their places, in bytes from now; their weights; scratch."""
        post, pre = self.of.weight.shape
        synapses = (x.contiguous().numpy() for x in (self.of.cell, *self.of.weights))
        listed = self.kernels.list_weights(*synapses, 4 * self.words, 4 * self.words // pre)
        return *listed, self.of.weight.new_empty(post * self.kernels.WORD).numpy()

    def add(self, t: int, x: Tensor) -> tuple[int, bool]:
        """Append the spikes ``(batch, pre)`` of step t; return how many there are, and whether all are 1."""
        spikes, plain = self.kernels.pack(x.numpy(), self.history, (self.past + t) * self.words)
        return spikes, plain

    def read(self, t: int) -> Tensor:
        """Return the current ``(batch, post)`` at the newest step."""
        now = (self.past + t) * self.words * 4
        self.kernels.bits_kernel()(self.history.view(np.uint8), now, *self.entries, self.out.numpy())
        return self.out

    def spikes(self, t: int) -> Tensor:
        """Unpack the spikes ``(batch, pre)`` of a step."""
        start = (self.past + t) * self.words
        words = self.history[start : start + self.words].reshape(self.of.weight.shape[1], -1)
        bits = np.unpackbits(words.view(np.uint8), axis=1, count=self.batch, bitorder="little")
        return torch.from_numpy(bits.T.copy()).to(self.of.weight.dtype)


class _Rows:
    """Windows of the rows of a batch, ``(batch, cell, post)``, which now and then move on; forwards."""

    def __init__(self, of: GridSynaptic, batch: int) -> None:
        self.post, self.kernel = len(of.weight), of.kernels.deliver
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
