"""The recurrent connection of a rollout, one step at a time: delayed current forward, its anti-causal twin backward.

Histories are ``(time, neuron, batch)``, see :mod:`delaykit.functional.rollout_numba`. With x[t] = s[t-1] the input of
the connection and g[t] the gradient of its current:

| delay | current | gradient of x | gradient of the weight | gradient of a tap |
|---|---|---|---|---|
| none | W x | W^T g | g x^T | - |
| layer, axonal | W R(x) | R'(W^T g) | g R(x)^T | corr(x, W^T g) |
| dendritic | R(W x) | W^T R'(g) | R'(g) x^T | corr(W x, g) |
| synaptic | (W R)(x) | (W R)'(g) | sum_m value corr(x, g) | W corr(x, g) |

R reads taps in the past, R' the same taps in the future; for second-difference taps both end in two running sums.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor

from delaykit.functional.rollout_numba import NumbaKernels


class Sparse(NamedTuple):
    """Taps without their public coat: index and value ``(m, A, B)``, and order 0 or 2."""

    index: Tensor
    value: Tensor
    order: int


class Reader(ABC):
    """Reads a history through taps: the past (``sign`` 1, steps ascending) or the future (-1, steps descending).

    The history ``(time + pad, neuron, batch)`` has ``pad`` steps of zeros more, before the past or after the future, so
    that no read needs a bounds check.
    """

    def __init__(self, history: Tensor, pad: int, taps: Sparse, sign: int, kernels: NumbaKernels | None) -> None:
        self.history, self.pad, self.sign, self.order, self.kernels = history, pad, sign, taps.order, kernels
        index, value, source = self._by_row(taps)
        shape = (len(index), history.shape[2])
        self.out, self.turned = history.new_empty(shape), history.new_empty(shape[::-1])
        self.raw = self.out
        if taps.order:  # two running sums would make a drift out of every float32 rounding
            self.sums = history.new_zeros((2, *shape), dtype=torch.float64)
            self.raw = torch.empty_like(self.sums[0])
        if kernels is None:
            self._prepare(taps)
            return
        self._pack(index, value, source)
        self.out_array, self.turned_array, self.raw_array = (x.numpy() for x in (self.out, self.turned, self.raw))
        self.sum_arrays = self.sums.numpy() if taps.order else None

    def _pack(self, index: Tensor, value: Tensor, source: Tensor) -> None:
        """List the taps that are not zero, row by row, with their place in the flat history relative to now."""
        _, neurons, batch = self.history.shape
        used = (value != 0) & (index <= self.pad)  # beyond the pad lies only what is before the first step
        place = (source - self.sign * index * neurons) * batch
        first = torch.zeros(len(index) + 1, dtype=torch.int64)
        torch.cumsum(used.sum(1), 0, out=first[1:])
        (kept,) = used.reshape(-1).nonzero(as_tuple=True)
        self.flat, self.first = self.history.view(-1).numpy(), first.numpy()
        self.place, self.value = place.reshape(-1)[kept].numpy(), value.reshape(-1)[kept].numpy()

    def read(self, t: int) -> Tensor:
        """Return the filtered history at step ``t``, ``(rows, batch)``; valid until the next read."""
        steps, neurons, batch = self.history.shape
        now = t + self.pad if self.sign > 0 else t
        if self.kernels is None:
            self._gather(now)
            if self.order:
                self.sums[0] += self.raw
                self.sums[1] += self.sums[0]
                self.out.copy_(self.sums[1])
            return self.out
        self.kernels.read(self.flat, now * neurons * batch, self.first, self.place, self.value, self.raw_array)
        if self.order:
            self.kernels.running_sums(self.raw_array, *self.sum_arrays, self.out_array)
        return self.out

    def read_turned(self, t: int) -> Tensor:
        """Return the filtered history at step ``t``, ``(batch, rows)``; valid until the next read."""
        rows = self.read(t)
        if self.kernels is None:
            return rows.t()
        self.kernels.turn(self.out_array, self.turned_array)
        return self.turned

    @abstractmethod
    def _by_row(self, taps: Sparse) -> tuple[Tensor, Tensor, Tensor]:
        """Return index and value ``(rows, entries)`` and the neuron that each entry reads, which may broadcast."""

    @abstractmethod
    def _prepare(self, taps: Sparse) -> None:
        """Get ready to gather without Numba."""

    @abstractmethod
    def _gather(self, now: int) -> None:
        """Write the tapped history at ``now`` into ``self.raw``, without Numba."""


class LineReader(Reader):
    """One set of taps for each neuron, ``(m, 1, neuron)`` or ``(m, neuron, 1)``."""

    def _by_row(self, taps: Sparse) -> tuple[Tensor, Tensor, Tensor]:
        index, value = (x.flatten(1).t().contiguous() for x in taps[:2])
        return index, value, torch.arange(len(index), device=index.device).unsqueeze(1)

    def _prepare(self, taps: Sparse) -> None:
        self.index, self.weight = taps.index.flatten(1), taps.value.flatten(1)

    def _gather(self, now: int) -> None:
        steps, neurons, _ = self.history.shape
        source = now - self.sign * self.index
        weight = torch.where((source >= 0) & (source < steps), self.weight, torch.zeros_like(self.weight))
        rows = self.history[source.clamp(0, steps - 1), torch.arange(neurons, device=source.device)]
        torch.sum(rows * weight.unsqueeze(-1), 0, out=self.raw)


class SynapseReader(Reader):
    """One set of taps for each synapse, ``(m, out, in)``, values already times the weight."""

    def _by_row(self, taps: Sparse) -> tuple[Tensor, Tensor, Tensor]:
        index, value = (x.permute(1, 2, 0).flatten(1) for x in taps[:2])
        sources = torch.arange(taps.index.shape[2], device=index.device)
        return index, value, sources.repeat_interleave(len(taps.index)).unsqueeze(0)

    def _prepare(self, taps: Sparse) -> None:
        self.dense = _by_lag(taps, self.history.shape[0])

    def _gather(self, now: int) -> None:
        """One product over all lags: dense in the depth, but right on every device."""
        depth = min(len(self.dense), now + 1 if self.sign > 0 else len(self.history) - now)
        window = self.history[now - self.sign * torch.arange(depth, device=self.history.device)].to(self.dense.dtype)
        self.raw.copy_(torch.einsum("kij,kjb->ib", self.dense[:depth], window))


def _by_lag(taps: Sparse, steps: int) -> Tensor:
    """Spread taps ``(m, out, in)`` over their lags, ``(lag, out, in)``; lags beyond the sequence are left out."""
    depth = min(int(taps.index.max()) + 1, steps)
    dense = taps.value.new_zeros((depth, *taps.index.shape[1:]))
    inside = taps.index < depth
    return dense.scatter_add_(0, torch.where(inside, taps.index, 0), torch.where(inside, taps.value, 0.0))


def unrolled(history: Tensor, pad: int, steps: int, taps: Sparse, summed: bool, kernels: NumbaKernels | None) -> Tensor:
    """Give ``(neuron, time batch)``; for second differences in float64, if ``summed`` twice summed from the end."""
    _, neurons, batch = history.shape
    dtype = torch.float64 if taps.order else history.dtype
    if kernels is not None:
        out = history.new_empty((neurons, steps * batch), dtype=dtype)
        kernels.unroll(history.numpy(), pad, summed and taps.order > 0, out.numpy())
        return out
    history = history[pad : pad + steps].to(dtype)
    for _ in range(taps.order if summed else 0):
        history = history.flip(0).cumsum(0).flip(0)
    return history.transpose(0, 1).flatten(1)


def correlate_lines(x: Tensor, g: Tensor, pad: int, taps: Sparse, kernels: NumbaKernels | None) -> Tensor:
    """Return ``sum_{t, b} x[t - index, n] g[t, n]``, shape of the taps; x padded before, g after."""
    steps, batch = g.shape[0] - pad, g.shape[2]
    index = taps.index.flatten(1).contiguous()
    out = g.new_zeros(index.shape, dtype=torch.float64 if taps.order else g.dtype)
    if kernels is not None:
        sums = out.new_zeros((2, *g.shape[1:]))
        kernels.correlate_lines(x.numpy(), g.numpy(), pad, taps.order, index.numpy(), sums.numpy(), out.numpy())
        return out.view(taps.index.shape)
    flat_x, flat_g = unrolled(x, pad, steps, taps, False, None), unrolled(g, 0, steps, taps, True, None)
    time, rows = torch.arange(steps, device=x.device), flat_x.unflatten(1, (steps, batch))
    for m in range(index.shape[0]):
        source = time - index[m].unsqueeze(1)
        past = rows.gather(1, source.clamp(min=0).unsqueeze(-1).expand(-1, -1, batch)) * (source >= 0).unsqueeze(-1)
        out[m] = (past * flat_g.view_as(past)).sum((1, 2))
    return out.view(taps.index.shape)


def correlate_synapses(x: Tensor, g: Tensor, pad: int, taps: Sparse, kernels: NumbaKernels | None) -> Tensor:
    """Return ``sum_{t, b} x[t - index[m, i, j], j] g[t, i]``, ``(m, post, pre)``; x padded before, g after."""
    steps, batch = g.shape[0] - pad, g.shape[2]
    flat_x, flat_g = unrolled(x, pad, steps, taps, False, kernels), unrolled(g, 0, steps, taps, True, kernels)
    if kernels is not None:
        packed = taps.index.permute(1, 2, 0).to(torch.int32).contiguous()
        out = flat_g.new_empty(packed.shape)
        kernels.correlate_synapses(flat_x.numpy(), flat_g.numpy(), batch, packed.numpy(), out.numpy())
        return out.permute(2, 0, 1)
    out = flat_g.new_zeros(taps.index.shape)
    for lag in torch.unique(taps.index).tolist():
        if lag < steps:
            product = flat_g[:, lag * batch :] @ flat_x[:, : (steps - lag) * batch].T
            out = torch.where(taps.index == lag, product, out)
    return out


class Connection(ABC):
    """One recurrent connection over one sequence; inputs and gradients are handed over step by step."""

    remembers = True  # whether the steps read a history of the input

    def __init__(self, weight: Tensor, taps: Sparse | None, steps: int, kernels: NumbaKernels | None) -> None:
        self.weight, self.taps, self.kernels = weight, taps, kernels
        self.pad = 0 if taps is None else min(int(taps.index.max()), steps)

    def _padded(self, steps: int, neurons: int, batch: int) -> Tensor:
        """Make a history with the pad before its past or after its future."""
        return self.weight.new_zeros(steps + self.pad, neurons, batch)

    @abstractmethod
    def begin(self, x: Tensor, steps: int) -> None:
        """Prepare the forward steps; ``x (pad + time, pre, batch)`` is the input history that is being filled."""

    @abstractmethod
    def current(self, t: int, spikes: Tensor) -> Tensor:
        """Return the current at ``t``, ``(batch, post)``, from the newest input ``spikes`` ``(batch, pre)``."""

    @abstractmethod
    def begin_backward(self, steps: int, batch: int) -> None:
        """Prepare the backward steps."""

    @abstractmethod
    def pull(self, t: int, g: Tensor) -> Tensor:
        """Return the gradient of x[t], ``(batch, pre)``, from that of the current at ``t``, ``(batch, post)``."""

    @abstractmethod
    def gradients(self, x: Tensor, g: Tensor, want: tuple[bool, bool]) -> tuple[Tensor | None, Tensor | None]:
        """Return the gradients of weight and tap values, once.

        Args:
            x: all inputs, ``(time, batch, pre)`` or, where :attr:`remembers`, the history ``(pad + time, pre, batch)``.
            g: all gradients of the current, ``(time, batch, post)``.
            want: which of the two is needed.
        """


def _weight_gradient(g: Tensor, x: Tensor) -> Tensor:
    """Multiply ``g (time, batch, post)`` with ``x (time, batch, pre)`` to ``(post, pre)``."""
    return g.flatten(0, 1).t() @ x.flatten(0, 1)


class Bare(Connection):
    """No delay."""

    remembers = False

    def begin(self, x: Tensor, steps: int) -> None:
        self.out = x.new_empty(x.shape[2], self.weight.shape[0])

    def current(self, t: int, spikes: Tensor) -> Tensor:
        return torch.mm(spikes, self.weight.t(), out=self.out)

    def begin_backward(self, steps: int, batch: int) -> None:
        self.out = self.weight.new_empty(batch, self.weight.shape[1])

    def pull(self, t: int, g: Tensor) -> Tensor:
        return torch.mm(g, self.weight, out=self.out)

    def gradients(self, x: Tensor, g: Tensor, want: tuple[bool, bool]) -> tuple[Tensor | None, Tensor | None]:
        return (_weight_gradient(g, x) if want[0] else None), None


class Axonal(Connection):
    """One delay for each presynaptic neuron (or for the layer): delay, then one product."""

    taps: Sparse

    def begin(self, x: Tensor, steps: int) -> None:
        self.reader = LineReader(x, self.pad, self.taps, 1, self.kernels)
        self.out = x.new_empty(x.shape[2], self.weight.shape[0])

    def current(self, t: int, spikes: Tensor) -> Tensor:
        return torch.mm(self.reader.read(t).t(), self.weight.t(), out=self.out)

    def begin_backward(self, steps: int, batch: int) -> None:
        self.arrived = self._padded(steps, self.weight.shape[1], batch)  # gradient of R(x)
        self.reader = LineReader(self.arrived, self.pad, self.taps, -1, self.kernels)

    def pull(self, t: int, g: Tensor) -> Tensor:
        torch.mm(self.weight.t(), g.t(), out=self.arrived[t])
        return self.reader.read_turned(t)

    def gradients(self, x: Tensor, g: Tensor, want: tuple[bool, bool]) -> tuple[Tensor | None, Tensor | None]:
        grad_weight = grad_value = None
        if want[1]:
            grad_value = correlate_lines(x, self.arrived, self.pad, self.taps, self.kernels)
        if want[0]:
            reader = LineReader(x, self.pad, self.taps, 1, self.kernels)
            delayed = self.arrived[: len(g)].view(g.shape)  # free by now
            for t in range(len(g)):
                delayed[t] = reader.read_turned(t)
            grad_weight = _weight_gradient(g, delayed)
        return grad_weight, grad_value


class Dendritic(Connection):
    """One delay for each postsynaptic neuron: one product, then delay."""

    remembers = False
    taps: Sparse

    def begin(self, x: Tensor, steps: int) -> None:
        self.product = self._padded(steps, self.weight.shape[0], x.shape[2])
        self.reader = LineReader(self.product, self.pad, self.taps, 1, self.kernels)

    def current(self, t: int, spikes: Tensor) -> Tensor:
        torch.mm(self.weight, spikes.t(), out=self.product[self.pad + t])
        return self.reader.read_turned(t)

    def begin_backward(self, steps: int, batch: int) -> None:
        self.current_gradient = self._padded(steps, self.weight.shape[0], batch)
        self.product_gradient = self.weight.new_empty(steps, batch, self.weight.shape[0])
        self.reader = LineReader(self.current_gradient, self.pad, self.taps, -1, self.kernels)
        self.out = self.weight.new_empty(batch, self.weight.shape[1])

    def pull(self, t: int, g: Tensor) -> Tensor:
        self.current_gradient[t] = g.t()
        self.product_gradient[t] = self.reader.read_turned(t)
        return torch.mm(self.product_gradient[t], self.weight, out=self.out)

    def gradients(self, x: Tensor, g: Tensor, want: tuple[bool, bool]) -> tuple[Tensor | None, Tensor | None]:
        grad_weight = _weight_gradient(self.product_gradient, x) if want[0] else None
        grad_value = None
        if want[1]:
            product = self._padded(len(g), self.weight.shape[0], g.shape[1])
            torch.matmul(self.weight, x.transpose(1, 2), out=product[self.pad :])
            grad_value = correlate_lines(product, self.current_gradient, self.pad, self.taps, self.kernels)
        return grad_weight, grad_value


class Synaptic(Connection):
    """One delay for each synapse: every synapse reads its own taps."""

    taps: Sparse

    def _coefficients(self) -> Sparse:
        return self.taps._replace(value=self.weight * self.taps.value)

    def begin(self, x: Tensor, steps: int) -> None:
        self.reader = SynapseReader(x, self.pad, self._coefficients(), 1, self.kernels)

    def current(self, t: int, spikes: Tensor) -> Tensor:
        return self.reader.read_turned(t)

    def begin_backward(self, steps: int, batch: int) -> None:
        self.current_gradient = self._padded(steps, self.weight.shape[0], batch)
        index, value, order = self._coefficients()
        turned = Sparse(index.transpose(1, 2), value.transpose(1, 2), order)
        self.reader = SynapseReader(self.current_gradient, self.pad, turned, -1, self.kernels)

    def pull(self, t: int, g: Tensor) -> Tensor:
        self.current_gradient[t] = g.t()
        return self.reader.read_turned(t)

    def gradients(self, x: Tensor, g: Tensor, want: tuple[bool, bool]) -> tuple[Tensor | None, Tensor | None]:
        if not any(want):
            return None, None
        correlation = correlate_synapses(x, self.current_gradient, self.pad, self.taps, self.kernels)
        grad_weight = (correlation * self.taps.value).sum(0).to(self.weight.dtype) if want[0] else None
        return grad_weight, (correlation * self.weight if want[1] else None)


def connect(weight: Tensor, taps: Sparse | None, steps: int, kernels: NumbaKernels | None) -> Connection:
    """Choose the connection by the taps' own shape: (m, 1, pre), (m, post, 1) or (m, post, pre)."""
    if taps is None:
        return Bare(weight, None, steps, kernels)
    post, pre = taps.index.shape[1:]
    kind = Axonal if post == 1 else Dendritic if pre == 1 else Synaptic
    return kind(weight, taps, steps, kernels)
