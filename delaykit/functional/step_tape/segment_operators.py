"""What one segment of a tape computes: a filter alone, a filter then a product, or a product then a filter.

A *segment* runs from a reset or detach to the next, with constant parameters. Its :class:`SegmentOperator` makes the
outputs one step at a time; a backward pass makes one :class:`Gradients` that is fed the output gradients last step
first.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Generic, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from delaykit.functional.dispatch import implementation_of
from delaykit.functional.step_tape.filters import Filter
from delaykit.functional.step_tape.recording import Recording, StepRecording, empty_rows, new_rows


class RunningSums:
    """Sum a stream twice in float64: what turns taps of order 2 into a response.

    Args:
        shape: ``(channel, batch, space)``.
        device: where.
    """

    def __init__(self, shape: tuple[int, int, int], device: torch.device) -> None:
        self.first, self.second, self.incoming = empty_rows((3, *shape), torch.float64, device).zero_()

    def add(self, row: Tensor | None) -> Tensor:
        """Take the next row in, None for zeros, and give the running sum of the running sum (valid until the next)."""
        if row is not None:
            self.first += row
        self.second += self.first
        return self.second


class SegmentOperator(ABC):
    """One connection with constant parameters.

    Args:
        filter: its filter.
        identity: whether the filter lets everything through at once, so that it can be left out.
        shape: of an input, ``(batch, channel, *space)``.
        dtype: of the rows.
        device: of the rows.
        weight: ``(post, pre)`` or None.
        bias: ``(post,)`` or None.

    Attributes:
        parameters: what gradients are given for, in the order of :meth:`Gradients.finish`.
        recording: how its inputs are remembered.
    """

    recording: ClassVar[type[Recording]] = Recording
    keeps_products: ClassVar[bool] = False  # whether what is under way was multiplied by the weight already

    def __init__(
        self,
        filter: Filter,
        identity: bool,
        shape: torch.Size,
        dtype: torch.dtype,
        device: torch.device,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
    ) -> None:
        self.filter, self.identity, self.dtype, self.device = filter, identity, dtype, device
        self.batch, self.space, self.places = shape[0], shape[2:], shape[2:].numel()
        self.chunk = self.batch * self.places
        self.weight, self.bias = weight, bias
        self.store = implementation_of("tape_store", device)
        self._sums = self.new_sums()

    @property
    @abstractmethod
    def parameters(self) -> tuple[Tensor | None, ...]:
        """All tensors that gradients are given for."""

    @property
    def outlasts(self) -> int:
        """After how many steps without a gradient no later gradient reaches what was recorded before."""
        return self.filter.reach

    def pause(self) -> None:  # noqa: B027 - optional hook
        """Know that the next step records no gradient, between steps that do."""

    @abstractmethod
    def forward(self, x: Tensor, recording: Recording, row: int, keep: int | None) -> Tensor:
        """Give the output of this step; ``x`` is already in ``row`` of the recording."""

    @abstractmethod
    def gradients(self, recording: Recording, last: int) -> Gradients:
        """Begin a backward pass whose last recorded step is ``last``."""

    def wanted(self, *found: Tensor) -> tuple[Tensor | None, ...]:
        """Leave out the gradients of parameters that do not learn."""
        pairs = zip(self.parameters, found, strict=True)
        return tuple(g if p is not None and p.requires_grad else None for p, g in pairs)

    def new_sums(self) -> RunningSums | None:
        """Make the running sums that order 2 needs, None for order 0."""
        shape = (self.filter.outputs, self.batch, self.places)
        return RunningSums(shape, self.device) if self.filter.order == 2 else None

    def remains(self, recording: Recording, keep: int) -> Tensor | None:
        """Return what goes on into the next segment besides the ``keep`` newest inputs; None: nothing."""
        return None

    def replay(self, recording: Recording, remains: Tensor | None = None) -> None:
        """Bring running state up to the rows, and to the :meth:`remains`, that an earlier segment left."""
        if self._sums is not None and not self.identity:
            for row in range(recording.pad, recording.size):
                self.filter.read(recording.rows, row, self._sums.incoming)
                self._sums.add(self._sums.incoming)

    def filtered(self, rows: Tensor, row: int, out: Tensor, sums: RunningSums | None) -> None:
        """Write the filter's output at ``row`` to ``out (channel, batch, space)``; moves the sums on."""
        if sums is None:
            self.filter.read(rows, row, out)
        else:
            self.filter.read(rows, row, sums.incoming)
            out.copy_(sums.add(sums.incoming))

    def empty(self, channels: int) -> Tensor:
        """Allocate an output ``(batch, channel, *space)``."""
        return torch.empty(self.batch, channels, *self.space, dtype=self.dtype, device=self.device)

    def turned(self, out: Tensor) -> Tensor:
        """View an output ``(batch, channel, *space)`` as ``(channel, batch, space)``."""
        return out.view(*out.shape[:2], self.places).transpose(0, 1)


class FilterGradients:
    """Output gradients of the filter alone, with a tail of zeros for the steps after the last.

    For order 2 a row holds the gradient of what enters the running sums: their anti-causal twin.
    """

    def __init__(self, operator: SegmentOperator, recording: Recording, last: int) -> None:
        self.operator, self.filter, self.recording, self.last = operator, operator.filter, recording, last
        self.sums = operator.new_sums()
        dtype = operator.dtype if self.sums is None else torch.float64
        count = last + self.filter.reach
        self.rows = new_rows(self.filter.outputs, count, operator.chunk, dtype, operator.device, self.filter.by_time)
        self.rows[:, last + 1 :].zero_()

    def push(self, row: int, grad: Tensor | None) -> None:
        """Take a gradient ``(batch, outputs, *space)``."""
        if self.sums is not None:
            turned = None if grad is None else grad.reshape(*grad.shape[:2], self.operator.places).transpose(0, 1)
            self.rows[:, row].view(self.sums.second.shape).copy_(self.sums.add(turned))
        elif grad is None:
            self.rows[:, row].zero_()
        else:
            self.operator.store(self.rows, row, grad)

    def total(self, first: int) -> Tensor:
        """Sum of all output gradients, ``(outputs,)``; ask before rows older than ``first`` are pushed."""
        if self.sums is not None:
            return self.sums.first.sum((1, 2))
        return self.rows[:, first : self.last + 1].sum((1, 2))

    def past(self, first: int) -> range:
        """Rows before ``first`` whose values reach the outputs, newest first."""
        low = self.recording.pad if self.sums is not None else max(self.recording.pad, first - self.filter.reach + 1)
        return range(first - 1, low - 1, -1)

    def parameters(self, rows: Tensor, first: int) -> tuple[Tensor | None, ...]:
        """Gradient of the filter's parameters from the ``rows`` it has read."""
        if not any(p.requires_grad for p in self.filter.parameters):
            return (None,) * len(self.filter.parameters)
        start = self.recording.pad if self.sums is not None else first
        return self.filter.correlate(self.rows, rows, start, self.last + 1)


OperatorType = TypeVar("OperatorType", bound=SegmentOperator)


class Gradients(ABC, Generic[OperatorType]):
    """What one backward pass writes down of one segment; rows arrive in descending order without a gap.

    Args:
        operator: of the segment.
        recording: inputs of the segment.
        last: the last row the loss depends on, which is the first to come.
    """

    def __init__(self, operator: OperatorType, recording: Recording, last: int) -> None:
        self.operator, self.last, self.oldest = operator, last, last + 1
        self.stream = FilterGradients(operator, recording, last)

    def skip_to(self, row: int) -> None:
        """Fill the steps between the oldest row so far and ``row`` that recorded no gradient with zeros."""
        for skipped in range(self.oldest - 1, row, -1):
            self.push(skipped, None)
        self.oldest = row

    @abstractmethod
    def push(self, row: int, grad: Tensor | None) -> None:
        """Take the output gradient of ``row``, None where the loss does not see it."""

    @abstractmethod
    def input(self, row: int) -> Tensor:
        """Give the completed gradient of the input of ``row``."""

    @abstractmethod
    def finish(self, first: int) -> tuple[Tensor | None, ...]:
        """Give the gradient of every parameter; ``first`` is the first row that recorded a gradient."""


class FilterOperator(SegmentOperator):
    """A filter, plus a bias: delay lines, per-synapse delays, any impulse response."""

    @property
    def parameters(self) -> tuple[Tensor | None, ...]:
        return (*self.filter.parameters, self.bias)

    def forward(self, x: Tensor, recording: Recording, row: int, keep: int | None) -> Tensor:
        if self.identity:
            return x.clone() if self.weight is None else F.linear(x, self.weight, self.bias)
        y = self.empty(self.filter.outputs)
        self.filtered(recording.rows, row, self.turned(y), self._sums)
        return (y if self.bias is None else y.add_(self.bias)).to(x.dtype)

    def gradients(self, recording: Recording, last: int) -> Gradients:
        return FilterOnly(self, recording, last)


class FilterOnly(Gradients[FilterOperator]):
    """Gradients of a filter and a bias."""

    def push(self, row: int, grad: Tensor | None) -> None:
        self.stream.push(row, grad)

    def input(self, row: int) -> Tensor:
        out = self.operator.empty(self.operator.filter.inputs)
        self.operator.filter.read_back(self.stream.rows, row, self.operator.turned(out))
        return out

    def finish(self, first: int) -> tuple[Tensor | None, ...]:
        bias = self.operator.bias
        total = self.stream.total(first).to(bias.dtype) if bias is not None and bias.requires_grad else None
        if self.stream.sums is not None:
            for row in self.stream.past(first):
                self.stream.push(row, None)
        return (*self.stream.parameters(self.stream.recording.rows, first), total)


class LineOperator(FilterOperator):
    """A filter of channels."""

    recording = StepRecording
