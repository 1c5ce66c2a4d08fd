"""What a recurrent connection is put together from, compiled; in vector registers, where these kernels are."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from delaykit.functional.recurrence.connection import grid
from delaykit.functional.recurrence.connection import torch as plain
from delaykit.functional.recurrence.connection.base import Parts, SparseTaps
from delaykit.functional.recurrence.connection.kernels import (
    correlate_events,
    correlate_step,
    deliver_taps,
    list_events,
    read_rows,
    running_sums,
    sparse_product,
    sparse_weight_gradient,
    transpose,
)
from delaykit.functional.recurrence.connection.spreads import spread_connection
from delaykit.functional.recurrence.connection.torch import Correlation
from delaykit.functional.tents import Grid, OwnTents, Tents

try:
    from delaykit.functional.llvm import recurrence as windows
    from delaykit.functional.llvm.recurrence import vector
except ImportError as error:  # the folder may be deleted
    if error.name != "delaykit.functional.llvm":
        raise
    vector = windows = None  # type: ignore[assignment]

VECTOR_BYTES = 64
FEW = 0.1  # share of inputs that are not zero up to which a correlation for every synapse is faster by events


class WeightProduct(plain.WeightProduct):
    """The product ``x W^T`` of a step: by the rows of ``W^T`` that spikes name, where there are few of them."""

    def __init__(self, weight: Tensor, batch: int) -> None:
        super().__init__(weight, batch)
        self.transposed = self.transposed.contiguous()
        self.arrays = self.transposed.numpy(), self.out.numpy()

    def __call__(self, x: Tensor) -> Tensor:
        """Multiply ``x (batch, pre)`` to ``(batch, post)``, valid until the next call."""
        return self.out if sparse_product(x.numpy(), *self.arrays) else super().__call__(x)


class Delivery(plain.Delivery):
    """Delays every neuron's input by its taps, input by input that is not zero."""

    def __init__(self, taps: SparseTaps, out: Tensor) -> None:
        super().__init__(taps, out)
        self.arrays = [x.numpy() for x in (self.index, self.value, self.used, self.pending, self.sums)]

    def __call__(self, t: int, x: Tensor) -> Tensor:
        """Take the input of step ``t``, ``(batch, neuron)``; return what arrives at that step."""
        out = self.out[t]
        deliver_taps(x.numpy(), t % self.slots, *self.arrays, out.numpy())
        return out


class Reader(plain.Reader):
    """Reads a history through the taps that are not zero."""

    def pack(self, index: Tensor, value: Tensor, source: Tensor) -> None:
        """List these taps row by row, with their place in the flat history relative to now.

        Args:
            index: ``(rows, entries)``.
            value: ``(rows, entries)``.
            source: the neuron that each entry reads, which may broadcast.
        """
        _, neurons, batch = self.history.shape
        used = (value != 0) & (index <= self.pad)  # beyond the pad lies only what is before the first step
        place = (source - self.sign * index * neurons) * batch
        first = torch.zeros(len(index) + 1, dtype=torch.int64)
        torch.cumsum(used.sum(1), 0, out=first[1:])
        (kept,) = used.reshape(-1).nonzero(as_tuple=True)
        entries = first, place.reshape(-1)[kept], value.reshape(-1)[kept]
        self.flat, self.entries = self.history.view(-1).numpy(), [x.numpy() for x in entries]
        self.kernel = read_rows if vector is None else vector.vector_read()

    def read(self, t: int) -> Tensor:
        """Return the filtered history at step ``t``, ``(batch, rows)``; valid until the next read."""
        self.gather(t + self.pad if self.sign > 0 else t)
        if self.order:
            running_sums(self.raw.numpy(), self.sums.numpy(), self.out.numpy())
        transpose(self.out.numpy(), self.transposed.numpy())
        return self.transposed

    def gather(self, now: int) -> None:
        """Write the tapped history at ``now`` into ``self.raw``."""
        _, neurons, batch = self.history.shape
        self.kernel(self.flat, now * neurons * batch, *self.entries, self.raw.numpy())


class LineReader(Reader, plain.LineReader):
    """One set of taps for each neuron, ``(m, 1, neuron)`` or ``(m, neuron, 1)``."""

    def prepare(self, taps: SparseTaps) -> None:
        """List the taps of every neuron."""
        index, value = (x.flatten(1).t().contiguous() for x in taps[:2])
        self.pack(index, value, torch.arange(len(index)).unsqueeze(1))
        self.taps, self.lanes = taps, VECTOR_BYTES // self.history.element_size()

    def read(self, t: int) -> Tensor:
        if windows is None or self.order:
            return super().read(t)
        _, neurons, batch = self.history.shape
        now = (t + self.pad if self.sign > 0 else t) * neurons * batch
        windows.read_line(self.flat, now, *self.entries, self.lanes, self.out.numpy(), self.transposed.numpy())
        return self.transposed

    def correlation(self) -> Correlation | None:
        return None if self.order else LineCorrelation(self)


class LineCorrelation:
    """The gradient of the taps of neurons that read the future, by the inputs that are not zero."""

    def __init__(self, reader: LineReader) -> None:
        self.flat, self.shape = reader.flat, reader.taps.index.shape
        _, neurons, batch = reader.history.shape
        late = reader.taps.index.flatten(1).t().clamp(max=reader.pad)  # there, behind the end, is nothing
        self.place = ((late * neurons + torch.arange(neurons).unsqueeze(1)) * batch).contiguous().numpy()
        self.step, self.sums = neurons * batch, reader.history.new_zeros(late.shape)

    def add(self, t: int, x: Tensor) -> None:
        """Add the products of the input of step ``t``, ``(batch, neuron)``, with what its taps read."""
        correlate_step(x.numpy(), self.flat, t * self.step, self.place, self.sums.numpy())

    def total(self) -> Tensor:
        """Return what they came to, in the shape of the taps."""
        return self.sums.t().reshape(self.shape)


class SynapseReader(Reader, plain.SynapseReader):
    """One set of taps for each synapse, ``(m, out, in)``, values already times the weight."""

    def prepare(self, taps: SparseTaps) -> None:
        """List the taps of every row of synapses."""
        index, value = (x.permute(1, 2, 0).flatten(1) for x in taps[:2])
        self.pack(index, value, torch.arange(taps.index.shape[2]).repeat_interleave(len(taps.index)).unsqueeze(0))


def weight_gradient(grad: Tensor, x: Tensor) -> Tensor:
    """Multiply ``grad (time, batch, post)`` with ``x (time, batch, pre)`` to ``(post, pre)``, by events if few."""
    out = grad.new_zeros(x.shape[2], grad.shape[2])
    if sparse_weight_gradient(grad.flatten(0, 1).numpy(), x.flatten(0, 1).numpy(), out.numpy()):
        return out.t().contiguous()
    return plain.weight_gradient(grad, x)


def line_correlation(x: Tensor, grad: Tensor, taps: SparseTaps, late: int = 0) -> Tensor:
    """Do what :func:`delaykit.functional.recurrence.connection.torch.line_correlation` does, by events."""
    out = _correlate(x, grad, taps, taps.index.flatten(1).t().unsqueeze(1), True, late)
    return out.permute(2, 1, 0).reshape(taps.index.shape)


def synapse_correlation(x: Tensor, grad: Tensor, taps: SparseTaps, late: int = 0) -> Tensor:
    """Do what :func:`delaykit.functional.recurrence.connection.torch.synapse_correlation` does, by events if few."""
    if torch.count_nonzero(x) > FEW * x.numel():
        return plain.synapse_correlation(x, grad, taps, late)
    return _correlate(x, grad, taps, taps.index.permute(1, 2, 0), False, late).permute(2, 0, 1)


def tents_connection(tents: Tents | OwnTents, currents: Tensor) -> Any:
    """Return what connects through two cells a synapse, as :mod:`~delaykit.functional.recurrence.adjoint` takes it.

    None where there is nothing faster than the taps.
    """
    if isinstance(tents, OwnTents):
        return spread_connection(tents, currents) if currents.numel() else None
    if windows is None or not currents.numel():
        return None
    return grid.tents_connection(tents, currents, synapse_correlation, windows)


def ringed(delays: Tensor, weight: Tensor, tents: Grid, steps: int, batch: int) -> Any:
    """Return what connects any two populations; see :func:`~delaykit.functional.recurrence.connection.grid.ringed`."""
    if windows is None:
        return None
    return grid.ringed(delays, weight, tents, steps, batch, synapse_correlation, windows)


def _correlate(x: Tensor, grad: Tensor, taps: SparseTaps, index: Tensor, paired: bool, late: int) -> Tensor:
    """Run the compiled correlation for ``index (post, 1 or pre, m)``."""
    out = grad.new_zeros(index.shape, dtype=torch.float64 if taps.order else grad.dtype)
    events = list_events(x.flatten(0, 1).numpy())
    packed = index.to(torch.int32).contiguous()
    correlate_events(*events, late, grad.numpy(), taps.order > 0, packed.numpy(), paired, out.numpy())
    return out


PARTS = Parts(
    WeightProduct, Delivery, LineReader, SynapseReader, weight_gradient, line_correlation, synapse_correlation,
    tents_connection,
)  # fmt: skip
