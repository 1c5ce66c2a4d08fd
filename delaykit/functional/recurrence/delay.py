"""Delays of a rollout, one step at a time: inputs are delivered to the steps where they arrive, or read from a history.

Delivery costs what the inputs that are not zero cost, and so suits spikes; reading suits gradients and products. For
second-difference taps both end in two running sums, kept in float64: a float32 rounding a step would become a drift.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor

from delaykit.functional.recurrence.kernels import deliver, running_sums, turn
from delaykit.functional.recurrence.vector import vector_read
from delaykit.functional.taps import Taps


class Sparse(NamedTuple):
    """Taps without their public coat: index and value ``(m, A, B)``, and order 0 or 2."""

    index: Tensor  # type: ignore[assignment]  # shadows tuple.index, as in Taps
    value: Tensor
    order: int

    @classmethod
    def of(cls, taps: Taps, currents: Tensor) -> Sparse:
        """Give a layer's single delay to every neuron; second differences stay float64."""
        index, value, order = taps
        if taps.shape == (1, 1):
            index, value = (x.expand(-1, 1, currents.shape[2]) for x in (index, value))
        return cls(index, value.to(torch.float64 if order else currents.dtype), order)


class Delivery:
    """Delays every neuron's input by its taps ``(m, 1, neuron)``; writes ``out (time, batch, neuron)``."""

    def __init__(self, taps: Sparse, out: Tensor, compiled: bool) -> None:
        steps, batch, neurons = out.shape
        index, value = taps.index.flatten(1).t(), taps.value.flatten(1).t()
        value = value.masked_fill(index >= steps, 0.0)
        front = (value == 0).to(torch.uint8).sort(stable=True, dim=1).indices  # taps in use come first
        self.value, self.used = value.gather(1, front), (value != 0).sum(1)
        self.index = index.gather(1, front).masked_fill_(self.value == 0, 0)
        self.slots = int(self.index.max()) + 1
        self.pending = value.new_zeros(batch, self.slots, neurons)
        self.sums = value.new_zeros(taps.order, batch, neurons)
        self.out, self.compiled = out, compiled
        self.neuron = torch.arange(neurons, device=index.device)
        if compiled:
            arrays = self.index, self.value, self.used, self.pending, self.sums
            self.arrays = [x.numpy() for x in arrays]

    def __call__(self, t: int, x: Tensor) -> Tensor:
        """Take the input of step ``t``, ``(batch, neuron)``; return what arrives at that step."""
        out, slot = self.out[t], t % self.slots
        if self.compiled:
            deliver(x.numpy(), slot, *self.arrays, out.numpy())
            return out
        for index, value in zip(self.index.t(), self.value.t(), strict=True):
            self.pending[:, (slot + index) % self.slots, self.neuron] += value * x
        now = self.pending[:, slot]
        for total in self.sums:
            total += now
            now = total
        out.copy_(now)
        self.pending[:, slot] = 0
        return out


class Reader(ABC):
    """Reads a history through taps: the past (``sign`` 1, steps ascending) or the future (-1, steps descending).

    The history ``(time + pad, neuron, batch)`` has ``pad`` steps of zeros more, before the past or after the future, so
    that no read needs a bounds check.
    """

    def __init__(self, history: Tensor, pad: int, taps: Sparse, sign: int, compiled: bool) -> None:
        self.history, self.pad, self.sign, self.order, self.compiled = history, pad, sign, taps.order, compiled
        index, value, source = self._by_row(taps)
        shape = (len(index), history.shape[2])
        self.out, self.turned = history.new_empty(shape), history.new_empty(shape[::-1])
        self.raw = self.out
        if taps.order:
            self.sums = history.new_zeros((2, *shape), dtype=torch.float64)
            self.raw = torch.empty_like(self.sums[0])
        if compiled:
            self._pack(index, value, source)
        else:
            self._prepare(taps)

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
        """Return the filtered history at step ``t``, ``(batch, rows)``; valid until the next read."""
        _, neurons, batch = self.history.shape
        now = t + self.pad if self.sign > 0 else t
        if not self.compiled:
            self._gather(now)
            if self.order:
                self.sums[0] += self.raw
                self.sums[1] += self.sums[0]
                self.out.copy_(self.sums[1])
            return self.out.t()
        vector_read()(self.flat, now * neurons * batch, self.first, self.place, self.value, self.raw.numpy())
        if self.order:
            running_sums(self.raw.numpy(), self.sums.numpy(), self.out.numpy())
        turn(self.out.numpy(), self.turned.numpy())
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
