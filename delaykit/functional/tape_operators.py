"""What one segment of a tape computes: a filter alone, a filter then a product, or a product then a filter.

A *segment* runs from a reset or detach to the next, with constant parameters. Its :class:`Operator` makes the outputs
one step at a time; a backward pass makes one :class:`Gradients` that is fed the output gradients last step first.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor

from delaykit.functional.tape_filters import Filter
from delaykit.functional.tape_history import History, empty_rows


class RunningSums:
    """Sum a stream twice in float64: what turns taps of order 2 into a response."""

    def __init__(self, channel: int, chunk: int, device: torch.device) -> None:
        self.first, self.second = empty_rows(2, channel, chunk, torch.float64, device).zero_()

    def add(self, row: Tensor | None) -> Tensor:
        """Take the next row in, None for zeros, and give the running sum of the running sum (valid until the next)."""
        if row is not None:
            self.first += row
        self.second += self.first
        return self.second


def row_order(x: Tensor) -> Tensor:
    """View ``(batch, channel, *space)`` in the order of a row; may not be contiguous."""
    return x.transpose(0, 1)


def store(row: Tensor, x: Tensor) -> None:
    """Copy ``(batch, channel, *space)`` into a row ``(channel, chunk)``."""
    first = row_order(x)
    row.view(first.shape).copy_(first)


class Operator(ABC):
    """One connection with constant parameters.

    Attributes:
        filter: its filter.
        parameters: what its gradients are given for, in the order of :meth:`Gradients.finish`.
        dtype: of the rows.
    """

    filter: Filter
    parameters: tuple[Tensor | None, ...]

    def __init__(self, filter: Filter, identity: bool, shape: torch.Size, dtype: torch.dtype, device: torch.device):
        self.filter, self.identity, self.dtype, self.device = filter, identity, dtype, device
        self.batch, self.space = shape[0], shape[2:]
        self.chunk = shape[0] * self.space.numel()
        self._sums = RunningSums(filter.outputs, self.chunk, device) if filter.order == 2 else None

    def output(self, row: Tensor, dtype: torch.dtype) -> Tensor:
        """Copy a row ``(channel, chunk)`` into a new ``(batch, channel, *space)``: a row may be state that moves on."""
        out = torch.empty(self.batch, row.shape[0], *self.space, dtype=dtype, device=self.device)
        row_order(out).copy_(row.view(row.shape[0], self.batch, *self.space))
        return out

    def _filtered(self, rows: Tensor, row: int) -> Tensor:
        out = self.filter.read(rows, row)
        return out if self._sums is None else self._sums.add(out).to(self.dtype)

    def replay(self, history: History) -> None:
        """Bring running state up to the rows that an earlier segment left."""
        if self._sums is not None and not self.identity:
            for row in range(history.pad, history.size):
                self._sums.add(self.filter.read(history.rows, row))

    @abstractmethod
    def forward(self, x: Tensor, history: History, row: int, keep: int | None) -> Tensor:
        """Give the output of this step; ``x`` is already in ``row`` of the history."""

    @abstractmethod
    def gradients(self, history: History, last: int) -> Gradients:
        """Begin a backward pass whose last recorded step is ``last``."""


class FilterGradients:
    """Output gradients of the filter alone, with a tail of zeros for the steps after the last.

    For order 2 a row holds the gradient of what enters the running sums: their anti-causal twin.
    """

    def __init__(self, operator: Operator, history: History, last: int) -> None:
        self.filter, self.history, self.last = operator.filter, history, last
        self.dtype = operator.dtype
        self.sums = None
        dtype = operator.dtype
        if self.filter.order == 2:
            self.sums, dtype = RunningSums(self.filter.outputs, operator.chunk, operator.device), torch.float64
        count = last + self.filter.reach
        self.rows = empty_rows(count, self.filter.outputs, operator.chunk, dtype, operator.device)
        self.rows[last + 1 :].zero_()

    def push(self, row: int, grad: Tensor | None) -> None:
        """Take a gradient ``(outputs, chunk)`` or one in the shape ``(outputs, batch, *space)``."""
        target = self.rows[row]
        if self.sums is not None:
            target.copy_(self.sums.add(None if grad is None else grad.reshape(target.shape)))
        elif grad is None:
            target.zero_()
        else:
            target.view(grad.shape).copy_(grad)

    def read(self, row: int) -> Tensor:
        """Gradient of the filter's input."""
        return self.filter.read_back(self.rows, row).to(self.dtype)

    def total(self, first: int) -> Tensor:
        """Sum of all output gradients, ``(outputs,)``; ask before rows older than ``first`` are pushed."""
        if self.sums is not None:
            return self.sums.first.sum(1)
        return self.rows[first : self.last + 1].sum((0, 2))

    def past(self, first: int) -> range:
        """Rows before ``first`` whose values reach the outputs, newest first."""
        low = self.history.pad if self.sums is not None else max(self.history.pad, first - self.filter.reach + 1)
        return range(first - 1, low - 1, -1)

    def parameters(self, rows: Tensor, first: int) -> tuple[Tensor | None, ...]:
        """Gradient of the filter's parameters from the ``rows`` it has read."""
        if not any(p.requires_grad for p in self.filter.parameters):
            return (None,) * len(self.filter.parameters)
        start = self.history.pad if self.sums is not None else first
        return self.filter.correlate(self.rows, rows, start, self.last + 1)


class Gradients(ABC):
    """What one backward pass writes down of one segment; rows arrive in descending order without a gap.

    Args:
        operator: of the segment.
        history: inputs of the segment.
        last: the last row the loss depends on, which is the first to come.
    """

    def __init__(self, operator: Operator, history: History, last: int) -> None:
        self.operator, self.last, self.oldest = operator, last, last + 1
        self.stream = FilterGradients(operator, history, last)

    def skip_to(self, row: int) -> None:
        """Fill the steps between the oldest row so far and ``row`` that recorded no gradient with zeros."""
        for skipped in range(self.oldest - 1, row, -1):
            self.push(skipped, None)
        self.oldest = row

    @abstractmethod
    def push(self, row: int, grad: Tensor | None) -> None:
        """Take the output gradient of ``row``, None where the loss does not see it."""

    @abstractmethod
    def input(self, row: int, dtype: torch.dtype) -> Tensor:
        """Give the completed gradient of the input of ``row``."""

    @abstractmethod
    def finish(self, first: int) -> tuple[Tensor | None, ...]:
        """Give the gradient of every parameter; ``first`` is the first row that recorded a gradient."""


class FilterOperator(Operator):
    """A filter, plus a bias: delay lines, per-synapse delays, any impulse response."""

    def __init__(self, filter, identity, shape, dtype, device, bias=None, weight=None):
        super().__init__(filter, identity, shape, dtype, device)
        self.bias, self.weight = bias, weight
        self.parameters = (*filter.parameters, bias)

    def forward(self, x, history, row, keep):
        if self.identity:
            return x.clone() if self.weight is None else F.linear(x, self.weight, self.bias)
        y = self.output(self._filtered(history.rows, row), x.dtype)
        return y if self.bias is None else y.add_(self.bias)

    def gradients(self, history, last):
        return _FilterOnly(self, history, last)


class _FilterOnly(Gradients):
    def push(self, row, grad):
        self.stream.push(row, None if grad is None else row_order(grad))

    def input(self, row, dtype):
        return self.operator.output(self.stream.read(row), dtype)

    def finish(self, first):
        bias = self.operator.bias
        total = self.stream.total(first).to(bias.dtype) if bias is not None and bias.requires_grad else None
        if self.stream.sums is not None:
            for row in self.stream.past(first):
                self.stream.push(row, None)
        return (*self.stream.parameters(self.stream.history.rows, first), total)


class AxonalOperator(Operator):
    """Delay every presynaptic channel, then one product: ``y = F.linear(z, W, b)``, ``z`` the delayed input."""

    def __init__(self, filter, identity, shape, dtype, device, weight, bias):
        super().__init__(filter, identity, shape, dtype, device)
        self.weight, self.bias = weight, bias
        self.parameters = (*filter.parameters, weight, bias)

    def forward(self, x, history, row, keep):
        z = x if self.identity else self._filtered(history.rows, row).t()
        return F.linear(z, self.weight, self.bias)

    def gradients(self, history, last):
        return _AxonalGradients(self, history, last)


class _AxonalGradients(Gradients):
    def __init__(self, operator: AxonalOperator, history: History, last: int) -> None:
        super().__init__(operator, history, last)
        self.weight = operator.weight.detach()
        shape = (last + 1, operator.batch, self.weight.shape[0])
        self.currents = empty_rows(*shape, operator.dtype, operator.device)

    def push(self, row, grad):
        if grad is None:
            self.currents[row].zero_()
            self.stream.push(row, None)
        else:
            current = self.currents[row].copy_(grad)
            self.stream.push(row, self.weight.t() @ current.t())

    def input(self, row, dtype):
        return self.operator.output(self.stream.read(row), dtype)

    def finish(self, first):
        weight, bias = self.operator.weight, self.operator.bias
        currents = self.currents[first : self.last + 1].flatten(0, 1)
        dbias = currents.sum(0) if bias is not None and bias.requires_grad else None
        if self.stream.sums is not None:
            for row in self.stream.past(first):
                self.stream.push(row, None)
        dweight = self._delayed(first) @ currents if weight.requires_grad else None
        parameters = self.stream.parameters(self.stream.history.rows, first)
        return (*parameters, None if dweight is None else dweight.t(), dbias)

    def _delayed(self, first: int) -> Tensor:
        """Delay the recorded input once more, ``(pre, time * batch)``: cheaper than to have kept it."""
        operator, history = self.operator, self.stream.history
        count = self.last + 1 - first
        z = empty_rows(count, operator.filter.inputs, operator.chunk, operator.dtype, operator.device)
        sums = RunningSums(operator.filter.inputs, operator.chunk, operator.device) if self.stream.sums else None
        for row in range(first if sums is None else history.pad, self.last + 1):
            a = operator.filter.read(history.rows, row)
            if sums is not None:
                a = sums.add(a)
            if row >= first:
                z[row - first].copy_(a)
        return z.transpose(0, 1).flatten(1)


class DendriticOperator(Operator):
    """One product, then a delay of every postsynaptic channel, then the bias."""

    def __init__(self, filter, identity, shape, dtype, device, weight, bias):
        super().__init__(filter, identity, shape, dtype, device)
        self.weight, self.bias = weight, bias
        self.parameters = (*filter.parameters, weight, bias)
        self.currents: History | None = None

    def replay(self, history):
        if self.identity:
            return
        self.currents = History(self.filter.outputs, self.chunk, history.pad, self.dtype, self.device)
        if history.size > history.pad:
            self.currents.extend(self.weight @ history.rows[history.pad : history.size])
        super().replay(self.currents)

    def forward(self, x, history, row, keep):
        if self.identity:
            return F.linear(x, self.weight, self.bias)
        current = F.linear(x, self.weight)
        at = self.currents.reserve(keep)
        store(self.currents.rows[at], current)
        y = self.output(self._filtered(self.currents.rows, at), current.dtype)
        return y if self.bias is None else y.add_(self.bias)

    def gradients(self, history, last):
        return _DendriticGradients(self, history, last)


class _DendriticGradients(Gradients):
    def __init__(self, operator: DendriticOperator, history: History, last: int) -> None:
        super().__init__(operator, history, last)
        self.weight = operator.weight.detach()
        self.currents = empty_rows(last + 1, operator.filter.outputs, operator.chunk, operator.dtype, operator.device)

    def push(self, row, grad):
        self.stream.push(row, None if grad is None else row_order(grad))
        self.currents[row].copy_(self.stream.read(row))

    def input(self, row, dtype):
        return (self.currents[row].t() @ self.weight).to(dtype)

    def finish(self, first):
        weight, bias = self.operator.weight, self.operator.bias
        dbias = self.stream.total(first) if bias is not None and bias.requires_grad else None
        low = first
        for low in self.stream.past(first):
            self.stream.push(low, None)
            self.currents[low].copy_(self.stream.read(low))
        rows = self.stream.history.rows[low : self.last + 1]
        dweight = None
        if weight.requires_grad:
            flat = self.currents[low : self.last + 1].transpose(0, 1).flatten(1)
            dweight = flat @ rows.transpose(0, 1).flatten(1).t()
        return (*self.stream.parameters(self._read(), first), dweight, dbias)

    def _read(self) -> Tensor:
        """Rows that the filter has read: the undelayed currents."""
        if self.operator.currents is not None:
            return self.operator.currents.rows
        return self.weight @ self.stream.history.rows[: self.last + 1]
