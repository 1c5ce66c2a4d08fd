"""What a recurrent connection is put together from, in plain torch.

Inputs are delivered to the steps where they arrive, or read from a history. Delivery costs what the inputs that are not
zero cost, and so suits spikes; reading suits gradients and products. For second-difference taps both end in two running
sums, kept in float64: a float32 rounding a step would become a drift.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Protocol

import torch
from torch import Tensor

from delaykit.functional.recurrence.connection.base import Parts, SparseTaps
from delaykit.functional.tents import OwnTents, Tents


class WeightProduct:
    """The product ``x W^T`` of a step."""

    def __init__(self, weight: Tensor, batch: int) -> None:
        self.transposed, self.out = weight.t(), weight.new_empty(batch, len(weight))

    def __call__(self, x: Tensor) -> Tensor:
        """Multiply ``x (batch, pre)`` to ``(batch, post)``, valid until the next call."""
        return torch.mm(x, self.transposed, out=self.out)


class Delivery:
    """Delays every neuron's input by its taps ``(m, 1, neuron)``; writes ``out (time, batch, neuron)``."""

    def __init__(self, taps: SparseTaps, out: Tensor) -> None:
        steps, batch, neurons = out.shape
        index, value = taps.index.flatten(1).t(), taps.value.flatten(1).t()
        value = value.masked_fill(index >= steps, 0.0)
        front = (value == 0).to(torch.uint8).sort(stable=True, dim=1).indices  # taps in use come first
        self.value, self.used = value.gather(1, front), (value != 0).sum(1)
        self.index = index.gather(1, front).masked_fill_(self.value == 0, 0)
        self.slots = int(self.index.max()) + 1
        self.pending = value.new_zeros(batch, self.slots, neurons)
        self.sums = value.new_zeros(taps.order, batch, neurons)
        self.out = out
        self.neuron = torch.arange(neurons, device=index.device)

    def __call__(self, t: int, x: Tensor) -> Tensor:
        """Take the input of step ``t``, ``(batch, neuron)``; return what arrives at that step."""
        out, slot = self.out[t], t % self.slots
        for index, value in zip(self.index.t(), self.value.t(), strict=True):
            self.pending[:, (slot + index) % self.slots, self.neuron] += value * x
        now = self.pending[:, slot]
        for total in self.sums:
            total += now
            now = total
        out.copy_(now)
        self.pending[:, slot] = 0
        return out


class Correlation(Protocol):
    """The gradient of taps, which grows step by step."""

    def add(self, t: int, x: Tensor) -> None:
        """Add the products of the input of step ``t``, ``(batch, neuron)``, with what its taps read."""

    def total(self) -> Tensor:
        """Return what they came to, in the shape of the taps."""


class Reader(ABC):
    """Reads a history through taps: the past (``sign`` 1, steps ascending) or the future (-1, steps descending).

    The history ``(time + pad, neuron, batch)`` has ``pad`` steps of zeros more, before the past or after the future, so
    that no read needs a bounds check. :meth:`prepare` and :meth:`gather` are a backend's own.
    """

    def __init__(self, history: Tensor, pad: int, taps: SparseTaps, sign: int, rows: int) -> None:
        self.history, self.pad, self.sign, self.order = history, pad, sign, taps.order
        shape = (rows, history.shape[2])
        self.out, self.transposed = history.new_empty(shape), history.new_empty(shape[::-1])
        self.raw = self.out
        if taps.order:
            self.sums = history.new_zeros((2, *shape), dtype=torch.float64)
            self.raw = torch.empty_like(self.sums[0])
        self.prepare(taps)

    def read(self, t: int) -> Tensor:
        """Return the filtered history at step ``t``, ``(batch, rows)``; valid until the next read."""
        self.gather(t + self.pad if self.sign > 0 else t)
        if self.order:
            self.sums[0] += self.raw
            self.sums[1] += self.sums[0]
            self.out.copy_(self.sums[1])
        return self.out.t()

    def correlation(self) -> Correlation | None:
        """Return what correlates inputs with what they read, step by step; None where it is done after the loop."""
        return None

    @abstractmethod
    def prepare(self, taps: SparseTaps) -> None:
        """Get ready to gather."""

    @abstractmethod
    def gather(self, now: int) -> None:
        """Write the tapped history at ``now`` into ``self.raw``."""


class LineReader(Reader):
    """One set of taps for each neuron, ``(m, 1, neuron)`` or ``(m, neuron, 1)``."""

    def __init__(self, history: Tensor, pad: int, taps: SparseTaps, sign: int) -> None:
        super().__init__(history, pad, taps, sign, history.shape[1])

    def prepare(self, taps: SparseTaps) -> None:
        """Keep the taps flat, ``(m, neuron)``."""
        self.index, self.weight = taps.index.flatten(1), taps.value.flatten(1)

    def gather(self, now: int) -> None:
        """Pick a step for each tap and neuron."""
        steps, neurons, _ = self.history.shape
        source = now - self.sign * self.index
        weight = torch.where((source >= 0) & (source < steps), self.weight, torch.zeros_like(self.weight))
        rows = self.history[source.clamp(0, steps - 1), torch.arange(neurons, device=source.device)]
        torch.sum(rows * weight.unsqueeze(-1), 0, out=self.raw)


class SynapseReader(Reader):
    """One set of taps for each synapse, ``(m, out, in)``, values already times the weight."""

    def __init__(self, history: Tensor, pad: int, taps: SparseTaps, sign: int) -> None:
        super().__init__(history, pad, taps, sign, taps.index.shape[1])

    def prepare(self, taps: SparseTaps) -> None:
        """Spread taps over their lags, ``(lag, out, in)``; lags beyond the sequence are left out."""
        depth = min(int(taps.index.max()) + 1, self.history.shape[0])
        dense = taps.value.new_zeros((depth, *taps.index.shape[1:]))
        inside = taps.index < depth
        value = torch.where(inside, taps.value, 0.0)
        self.dense = dense.scatter_add_(0, torch.where(inside, taps.index, 0), value)

    def gather(self, now: int) -> None:
        """Take one product over all lags: dense in the depth, but right on every device."""
        depth = min(len(self.dense), now + 1 if self.sign > 0 else len(self.history) - now)
        window = self.history[now - self.sign * torch.arange(depth, device=self.history.device)].to(self.dense.dtype)
        self.raw.copy_(torch.einsum("kij,kjb->ib", self.dense[:depth], window))


def weight_gradient(grad: Tensor, x: Tensor) -> Tensor:
    """Multiply ``grad (time, batch, post)`` with ``x (time, batch, pre)`` to ``(post, pre)``."""
    return grad.flatten(0, 1).t() @ x.flatten(0, 1)


def line_correlation(x: Tensor, grad: Tensor, taps: SparseTaps, late: int = 0) -> Tensor:
    """Return ``sum_{t, b} x[t - late - index, b, n] grad[t, n, b]``, shape of the taps.

    Args:
        x: inputs ``(time - late, batch, neuron)``, or fewer steps.
        grad: gradients of the filtered inputs ``(time, neuron, batch)``.
        taps: ``(m, 1, neuron)`` or ``(m, neuron, 1)``.
        late: number of steps by which x comes late.
    """
    index = taps.index.flatten(1)
    past, now = _rows(x.transpose(1, 2), taps, False), _rows(grad, taps, True)
    out, time = now.new_zeros(index.shape), torch.arange(len(grad), device=x.device)
    for m in range(len(index) if len(x) else 0):
        source = (time - late - index[m].unsqueeze(1)).unsqueeze(-1)
        inside = (source >= 0) & (source < len(x))
        read = past.gather(1, source.clamp(0, len(x) - 1).expand_as(now))
        out[m] = (read * inside * now).sum((1, 2))
    return out.view(taps.index.shape)


def synapse_correlation(x: Tensor, grad: Tensor, taps: SparseTaps, late: int = 0) -> Tensor:
    """Return ``sum_{t, b} x[t - late - index[m, i, j], b, j] grad[t, i, b]``, ``(m, post, pre)``; see above."""
    past, now = _rows(x.transpose(1, 2), taps, False), _rows(grad, taps, True)
    out = now.new_zeros(taps.index.shape)
    for lag in torch.unique(taps.index).tolist():
        steps = min(len(x), len(grad) - late - lag)
        if steps > 0:
            read = now[:, late + lag : late + lag + steps]
            out = torch.where(taps.index == lag, read.flatten(1) @ past[:, :steps].flatten(1).T, out)
    return out


def tents_connection(tents: Tents | OwnTents, currents: Tensor) -> None:
    """Leave tents to their taps: nothing here is faster."""


def _rows(x: Tensor, taps: SparseTaps, summed: bool) -> Tensor:
    """Turn ``(time, neuron, batch)`` into ``(neuron, time, batch)``; order 2: in float64, ``summed`` from the end."""
    x = x.to(torch.float64) if taps.order else x
    for _ in range(taps.order if summed else 0):
        x = x.flip(0).cumsum(0).flip(0)
    return x.transpose(0, 1).contiguous()


PARTS = Parts(
    WeightProduct, Delivery, LineReader, SynapseReader, weight_gradient, line_correlation, synapse_correlation,
    tents_connection,
)  # fmt: skip
