"""The recurrent connection of a rollout, one step at a time: delayed current forward, its anti-causal twin backward.

Histories are ``(neuron, time, batch)``, see :mod:`delaykit.functional.rollout_numba`. With x[t] = s[t-1] the input of
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
    """Reads a history through taps: the past (``sign`` 1, steps ascending) or the future (-1, steps descending)."""

    def __init__(self, history: Tensor, rows: int, order: int, sign: int, kernels: NumbaKernels | None) -> None:
        self.history, self.order, self.sign, self.kernels = history, order, sign, kernels
        shape = (rows, history.shape[2])
        self.out, self.turned = history.new_empty(shape), history.new_empty(shape[::-1])
        if order:  # two running sums would make a drift out of every float32 rounding
            self.sums = history.new_zeros((2, *shape), dtype=torch.float64)
            self.raw = torch.empty_like(self.sums[0])
        else:
            self.raw = self.out

    def read_turned(self, t: int) -> Tensor:
        """Return the filtered history at step ``t``, ``(batch, rows)``; valid until the next read."""
        rows = self.read(t)
        if self.kernels is None:
            return rows.t()
        self.kernels.turn(rows.numpy(), self.turned.numpy())
        return self.turned

    def read(self, t: int) -> Tensor:
        """Return the filtered history at step ``t``, ``(rows, batch)``; valid until the next read."""
        self._gather(t)
        if self.order and self.kernels is not None:
            self.kernels.running_sums(self.raw.numpy(), self.sums[0].numpy(), self.sums[1].numpy(), self.out.numpy())
        elif self.order:
            self.sums[0] += self.raw
            self.sums[1] += self.sums[0]
            self.out.copy_(self.sums[1])
        return self.out

    @abstractmethod
    def _gather(self, t: int) -> None:
        """Write the tapped history at ``t`` into ``self.raw``."""


class LineReader(Reader):
    """One set of taps for each neuron: index and value ``(m, neuron)``."""

    def __init__(self, history: Tensor, taps: Sparse, sign: int, kernels: NumbaKernels | None) -> None:
        super().__init__(history, history.shape[0], taps.order, sign, kernels)
        self.index, self.value = taps.index.flatten(1).contiguous(), taps.value.flatten(1).contiguous()
        if kernels is not None:
            self.arrays = (history.numpy(), sign, self.index.numpy(), self.value.numpy(), self.raw.numpy())

    def _gather(self, t: int) -> None:
        if self.kernels is not None:
            history, sign, index, value, raw = self.arrays
            self.kernels.read_lines(history, t, sign, index, value, raw)
            return
        neurons, steps, _ = self.history.shape
        source = t - self.sign * self.index
        weight = torch.where((source >= 0) & (source < steps), self.value, torch.zeros_like(self.value))
        rows = self.history[torch.arange(neurons, device=source.device), source.clamp(0, steps - 1)]
        torch.sum(rows * weight.unsqueeze(-1), 0, out=self.raw)


class SynapseReader(Reader):
    """One set of taps for each synapse; ``coefficient`` is weight times value, ``(m, out, in)``."""

    def __init__(self, history: Tensor, taps: Sparse, sign: int, kernels: NumbaKernels | None) -> None:
        super().__init__(history, taps.index.shape[1], taps.order, sign, kernels)
        if kernels is not None:
            packed = taps.index.permute(1, 2, 0).to(torch.int32).contiguous()
            coefficient = taps.value.permute(1, 2, 0).contiguous()
            self.arrays = (history.numpy(), sign, packed.numpy(), coefficient.numpy(), self.raw.numpy())
        else:
            self.dense = _by_lag(taps, history.shape[1])

    def _gather(self, t: int) -> None:
        if self.kernels is not None:
            history, sign, index, coefficient, raw = self.arrays
            self.kernels.read_synapses(history, t, sign, index, coefficient, raw)
            return
        # without Numba: one product over all lags, dense in the depth but right on every device
        steps, depth = self.history.shape[1], self.dense.shape[0]
        lags = torch.arange(min(depth, t + 1 if self.sign > 0 else steps - t), device=self.history.device)
        window = self.history[:, t - self.sign * lags].to(self.dense.dtype)
        self.raw.copy_(torch.einsum("kij,jkb->ib", self.dense[: len(lags)], window))


def _by_lag(taps: Sparse, steps: int) -> Tensor:
    """Spread taps ``(m, out, in)`` over their lags, ``(lag, out, in)``; lags beyond the sequence are left out."""
    depth = min(int(taps.index.max()) + 1, steps)
    dense = taps.value.new_zeros((depth, *taps.index.shape[1:]))
    inside = taps.index < depth
    return dense.scatter_add_(0, torch.where(inside, taps.index, 0), torch.where(inside, taps.value, 0.0))


def future_sums(g: Tensor, order: int) -> Tensor:
    """Apply the anti-causal running sums of ``order`` along time, in float64: what correlates with the bare taps."""
    if order == 0:
        return g
    g = g.double()
    for _ in range(order):
        g = g.flip(1).cumsum(1).flip(1)
    return g


def correlate_lines(x: Tensor, g: Tensor, taps: Sparse, kernels: NumbaKernels | None) -> Tensor:
    """Gradient of the tap values of lines, ``sum_{t, b} x[n, t - index] g[n, t]``, shape of the taps."""
    g = future_sums(g, taps.order)
    x = x.to(g.dtype)
    index = taps.index.flatten(1).contiguous()
    out = g.new_empty(index.shape)
    if kernels is not None:
        flat_x, flat_g = x.flatten(1).contiguous(), g.flatten(1).contiguous()
        kernels.correlate_lines(flat_x.numpy(), flat_g.numpy(), x.shape[2], index.numpy(), out.numpy())
        return out.view(taps.index.shape)
    neurons, steps, _ = x.shape
    time = torch.arange(steps, device=x.device)
    for m in range(index.shape[0]):
        source = time - index[m].unsqueeze(1)
        rows = x[torch.arange(neurons, device=x.device).unsqueeze(1), source.clamp(min=0)]
        out[m] = (rows * (source >= 0).unsqueeze(-1) * g).sum((1, 2))
    return out.view(taps.index.shape)


def correlate_synapses(x: Tensor, g: Tensor, taps: Sparse, kernels: NumbaKernels | None) -> Tensor:
    """Return ``sum_{t, b} x[j, t - index[m, i, j]] g[i, t]``, ``(m, post, pre)``."""
    g = future_sums(g, taps.order)
    x = x.to(g.dtype)
    if kernels is not None:
        packed = taps.index.permute(1, 2, 0).to(torch.int32).contiguous()
        out = g.new_empty(packed.shape)
        flat_x, flat_g = x.flatten(1).contiguous(), g.flatten(1).contiguous()
        kernels.correlate_synapses(flat_x.numpy(), flat_g.numpy(), x.shape[2], packed.numpy(), out.numpy())
        return out.permute(2, 0, 1)
    steps = x.shape[1]
    out = g.new_zeros(taps.index.shape)
    for lag in torch.unique(taps.index).tolist():
        if lag < steps:
            product = g[:, lag:].flatten(1) @ x[:, : steps - lag].flatten(1).T
            out = torch.where(taps.index == lag, product, out)
    return out


class Connection(ABC):
    """One recurrent connection over one sequence; inputs and gradients are handed over step by step."""

    remembers = True  # whether the forward steps read a history of the input

    def __init__(self, weight: Tensor, taps: Sparse | None, kernels: NumbaKernels | None) -> None:
        self.weight, self.taps, self.kernels = weight, taps, kernels

    @abstractmethod
    def begin(self, x: Tensor) -> None:
        """Prepare the forward steps; ``x`` is the input history that is being filled, ``(pre, time, batch)``."""

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
            x: all inputs, ``(pre, time, batch)``.
            g: all gradients of the current, ``(time, batch, post)``.
            want: which of the two is needed.
        """


def _weight_gradient(g: Tensor, x: Tensor) -> Tensor:
    """Multiply ``g (time, batch, post)`` with ``x (pre, time, batch)`` to ``(post, pre)``."""
    return g.flatten(0, 1).t() @ x.flatten(1).t()


class Bare(Connection):
    """No delay."""

    remembers = False

    def begin(self, x: Tensor) -> None:
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

    def begin(self, x: Tensor) -> None:
        self.reader = LineReader(x, self.taps, 1, self.kernels)
        self.out = x.new_empty(x.shape[2], self.weight.shape[0])

    def current(self, t: int, spikes: Tensor) -> Tensor:
        return torch.mm(self.reader.read(t).t(), self.weight.t(), out=self.out)

    def begin_backward(self, steps: int, batch: int) -> None:
        self.arrived = self.weight.new_empty(self.weight.shape[1], steps, batch)  # gradient of R(x)
        self.reader = LineReader(self.arrived, self.taps, -1, self.kernels)
        self.out = self.weight.new_empty(self.weight.shape[1], batch)

    def pull(self, t: int, g: Tensor) -> Tensor:
        self.arrived[:, t].copy_(torch.mm(self.weight.t(), g.t(), out=self.out))
        return self.reader.read_turned(t)

    def gradients(self, x: Tensor, g: Tensor, want: tuple[bool, bool]) -> tuple[Tensor | None, Tensor | None]:
        grad_weight = grad_value = None
        if want[1]:
            grad_value = correlate_lines(x, self.arrived, self.taps, self.kernels)
        if want[0]:
            delayed, reader = self.arrived, LineReader(x, self.taps, 1, self.kernels)  # its buffer is free by now
            for t in range(x.shape[1]):
                delayed[:, t].copy_(reader.read(t))
            grad_weight = _weight_gradient(g, delayed)
        return grad_weight, grad_value


class Dendritic(Connection):
    """One delay for each postsynaptic neuron: one product, then delay."""

    remembers = False
    taps: Sparse

    def begin(self, x: Tensor) -> None:
        self.product = x.new_empty(self.weight.shape[0], x.shape[1], x.shape[2])
        self.reader = LineReader(self.product, self.taps, 1, self.kernels)
        self.out = x.new_empty(self.weight.shape[0], x.shape[2])

    def current(self, t: int, spikes: Tensor) -> Tensor:
        self.product[:, t].copy_(torch.mm(self.weight, spikes.t(), out=self.out))
        return self.reader.read_turned(t)

    def begin_backward(self, steps: int, batch: int) -> None:
        self.current_gradient = self.weight.new_empty(self.weight.shape[0], steps, batch)
        self.product_gradient = torch.empty_like(self.current_gradient)
        self.reader = LineReader(self.current_gradient, self.taps, -1, self.kernels)
        self.out = self.weight.new_empty(batch, self.weight.shape[1])

    def pull(self, t: int, g: Tensor) -> Tensor:
        self.current_gradient[:, t].copy_(g.t())
        early = self.reader.read(t)
        self.product_gradient[:, t].copy_(early)
        return torch.mm(early.t(), self.weight, out=self.out)

    def gradients(self, x: Tensor, g: Tensor, want: tuple[bool, bool]) -> tuple[Tensor | None, Tensor | None]:
        grad_weight = self.product_gradient.flatten(1) @ x.flatten(1).t() if want[0] else None
        grad_value = None
        if want[1]:
            product = torch.mm(self.weight, x.flatten(1)).view(self.current_gradient.shape)
            grad_value = correlate_lines(product, self.current_gradient, self.taps, self.kernels)
        return grad_weight, grad_value


class Synaptic(Connection):
    """One delay for each synapse: every synapse reads its own taps."""

    taps: Sparse

    def _coefficients(self) -> Sparse:
        return self.taps._replace(value=self.weight * self.taps.value)

    def begin(self, x: Tensor) -> None:
        self.reader = SynapseReader(x, self._coefficients(), 1, self.kernels)

    def current(self, t: int, spikes: Tensor) -> Tensor:
        return self.reader.read_turned(t)

    def begin_backward(self, steps: int, batch: int) -> None:
        self.current_gradient = self.weight.new_empty(self.weight.shape[0], steps, batch)
        index, value, order = self._coefficients()
        turned = Sparse(index.transpose(1, 2), value.transpose(1, 2), order)
        self.reader = SynapseReader(self.current_gradient, turned, -1, self.kernels)

    def pull(self, t: int, g: Tensor) -> Tensor:
        self.current_gradient[:, t].copy_(g.t())
        return self.reader.read_turned(t)

    def gradients(self, x: Tensor, g: Tensor, want: tuple[bool, bool]) -> tuple[Tensor | None, Tensor | None]:
        if not any(want):
            return None, None
        correlation = correlate_synapses(x, self.current_gradient, self.taps, self.kernels)
        grad_weight = (correlation * self.taps.value).sum(0).to(self.weight.dtype) if want[0] else None
        return grad_weight, (correlation * self.weight if want[1] else None)


def connect(weight: Tensor, taps: Sparse | None, kernels: NumbaKernels | None) -> Connection:
    """Choose the connection by the taps' own shape: (m, 1, pre), (m, post, 1) or (m, post, pre)."""
    if taps is None:
        return Bare(weight, None, kernels)
    post, pre = taps.index.shape[1:]
    if post == 1:
        return Axonal(weight, taps, kernels)
    return Dendritic(weight, taps, kernels) if pre == 1 else Synaptic(weight, taps, kernels)
