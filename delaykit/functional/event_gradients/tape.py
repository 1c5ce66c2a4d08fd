"""Step mode with exact event gradients: whole arrivals, and gradients of when they came.

The outputs are those of the taps, one at ``round(d)`` for each delay. A backward pass keeps two streams behind the same
filter: ``g``, the gradient of the current, from which weight and bias get theirs, and ``h``, the gradient of an
arrival's time (:mod:`~delaykit.functional.event_gradients`), from which the delays get theirs, and the spikes
their times.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

from delaykit.errors import HistoryError
from delaykit.functional.event_gradients.rule import NeuronConstants, deliver, emission_of, warn_of_explosion
from delaykit.functional.step_tape.operator import LinearTape, LineTape, Tape
from delaykit.functional.step_tape.recording import Recording
from delaykit.functional.step_tape.segment import Segment, check_not_freed
from delaykit.functional.step_tape.segment_operators import Gradients, SegmentOperator
from delaykit.functional.taps import Taps


class Receiver:
    """What an exact tape must know besides its taps.

    Args:
        where: site name, for messages.
        constants: time constants of the neuron that listens.
        expected: whether the input is spikes of a neuron, whose times have a gradient.
    """

    def __init__(self, where: str, constants: NeuronConstants, expected: bool) -> None:
        self.where, self.constants, self.expected = where, constants, expected


class ExactTape(Tape):
    """Mixin for a tape of point delays: the same outputs, exact gradients.

    ``step`` finds the neuron behind its input by the graph; ``step_from`` is told.
    """

    receiver: Receiver
    _source: Any = None
    _told = False

    def step_from(self, x: Tensor, source: Any) -> Tensor:
        """Take the input of this time step, emitted by the node ``source`` (None: data)."""
        self._source, self._told = source, True
        try:
            return self.step(x)
        finally:
            self._source, self._told = None, False

    def _operator(self, x: Tensor) -> SegmentOperator:
        inner = super()._operator(x)  # type: ignore[safe-super]
        return ExactOperator(inner, self.receiver.constants, self.receiver.where)

    def _record(
        self, segment: Segment, x: Tensor, token: Tensor | None, *parameters: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        source = self._source if self._told else emission_of(x, self.receiver.where, self.receiver.expected)
        return ExactStep.apply(segment, x, source, token, *parameters)


class ExactLinearTape(ExactTape, LinearTape):
    """:class:`~delaykit.functional.step_tape.LinearTape` with exact gradients.

    Args:
        taps: whole ones, of :func:`~delaykit.functional.event_gradients.rule.whole_taps`.
        weight: ``(post, pre)``.
        bias: ``(post,)`` or None.
        receiver: the listening neuron.
        behind: see :class:`~delaykit.functional.step_tape.LinearTape`.
        remember: see :class:`~delaykit.functional.step_tape.Tape`.

    Example:
        >>> from delaykit.functional.event_gradients.rule import whole_taps
        >>> half = torch.tensor(0.5)
        >>> tape = ExactLinearTape(whole_taps(torch.tensor([[1.3]])), torch.ones(1, 1), None,
        ...                        Receiver("here", NeuronConstants(half, half), False))
        >>> [tape.step(torch.tensor([[float(t)]])).item() for t in (1, 2, 3)]
        [0.0, 1.0, 2.0]
    """

    def __init__(
        self, taps: Taps, weight: Tensor, bias: Tensor | None, receiver: Receiver, *, behind: bool | None = None,
        remember: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__(taps, weight, bias, behind=behind, remember=remember)
        self.receiver = receiver


class ExactLineTape(ExactTape, LineTape):
    """:class:`~delaykit.functional.step_tape.LineTape` with exact gradients; its neurons share their time constants.

    Args:
        taps: whole ones.
        receiver: the listening neuron.
        remember: see :class:`~delaykit.functional.step_tape.Tape`.
    """

    def __init__(self, taps: Taps, receiver: Receiver, *, remember: int | None = None) -> None:
        super().__init__(taps, remember=remember)
        self.receiver = receiver


class ExactStep(torch.autograd.Function):
    """One step, as :class:`~delaykit.functional.step_tape.segment.Step`; of spikes only the times get a gradient."""

    @staticmethod
    def forward(
        ctx: Any, segment: Segment, x: Tensor, source: Any, token: Tensor | None, *parameters: Tensor | None
    ) -> Any:
        ctx.set_materialize_grads(False)
        if token is None:
            segment.start()
        ctx.source = source
        return segment.forward(x), segment.note(ctx, x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, _: None) -> Any:
        if torch.is_grad_enabled():
            raise HistoryError(
                "tape backward", "create_graph=True", "first derivatives only", "exact gradients have no second ones"
            )
        check_not_freed(ctx)
        grad_x, *parameters = ctx.segment.backward(ctx.row, grad, ctx.dtype, "input" if ctx.source is None else "time")
        if ctx.source is not None and grad_x is not None:
            deliver(ctx.source, grad_x)
            grad_x = None
        return None, grad_x, None, None, *parameters


class ExactOperator(SegmentOperator):
    """A tape's operator whose backward pass tells times from values.

    Args:
        inner: computes the outputs.
        constants: time constants of the neuron that listens.
        where: site name, for messages.
    """

    def __init__(self, inner: SegmentOperator, constants: NeuronConstants, where: str) -> None:
        self.inner, self.filter, self.store, self.where = inner, inner.filter, inner.store, where
        self.dtype, self.device, self.identity = inner.dtype, inner.device, inner.identity
        now, later = (c.detach().to(inner.device, inner.dtype) for c in constants.arrival())
        room = (-1, *[1] * len(inner.space)) if now.numel() > 1 else ()
        self.now, self.later = now.reshape(room), later.reshape(room)

    @property
    def parameters(self) -> tuple[Tensor | None, ...]:
        return self.inner.parameters

    def forward(self, x: Tensor, recording: Recording, row: int, keep: int | None) -> Tensor:
        return self.inner.forward(x, recording, row, keep)

    def remains(self, recording: Recording, keep: int) -> Tensor | None:
        return self.inner.remains(recording, keep)

    def replay(self, recording: Recording, remains: Tensor | None = None) -> None:
        self.inner.replay(recording, remains)

    def gradients(self, recording: Recording, last: int) -> Gradients:
        return ExactGradients(self, recording, last)

    def values(self) -> SegmentOperator:
        """Return the operator through which ``g`` goes: it knows nothing of delays."""
        operator = copy.copy(self.inner)
        operator.filter = copy.copy(self.filter)
        operator.filter.parameters = (self.filter.parameters[0].detach(), *self.filter.parameters[1:])
        return operator

    def times(self) -> SegmentOperator:
        """Return the operator through which ``h`` goes: it knows nothing of weight and bias."""
        operator = copy.copy(self.inner)
        operator.filter = copy.copy(self.filter)
        operator.filter.parameters = (
            self.filter.parameters[0],
            *(p.detach() for p in self.filter.parameters[1:]),
        )
        if getattr(operator, "matrix", None) is not None:
            operator.matrix = operator.matrix.detach()  # type: ignore[attr-defined]
        operator.bias = None
        return operator


class ExactGradients(Gradients[ExactOperator]):
    """Two records of one pass: of the current's gradient, and of the gradient of arrival times."""

    def __init__(self, operator: ExactOperator, recording: Recording, last: int) -> None:
        self.operator, self.recording, self.last, self.oldest = operator, recording, last, last + 1
        self.of_values = operator.values().gradients(recording, last)
        self.of_times = operator.times().gradients(recording, last)
        self.after: Tensor | None = None

    def push(self, row: int, grad: Tensor | None) -> None:
        self.of_values.push(row, grad)
        time = None if grad is None else self.operator.now * grad
        if self.after is not None:
            later = self.operator.later * self.after
            time = later if time is None else time.add_(later)
        self.of_times.push(row, time)
        self.after = grad

    def input(self, row: int) -> Tensor:
        return self.of_values.input(row)

    def time(self, row: int) -> Tensor:
        """Give the gradient of the times of the spikes in ``row``, ``(batch, channel, *space)``."""
        inner = self.operator.inner
        rows = self.recording.rows[:, row]
        spikes = rows.view(rows.shape[0], inner.batch, inner.places).transpose(0, 1)
        return self.of_times.input(row) * spikes.reshape(inner.batch, rows.shape[0], *inner.space)

    def finish(self, first: int) -> tuple[Tensor | None, ...]:
        _, *of_values = self.of_values.finish(first)
        delays, *_ = self.of_times.finish(first)
        if delays is not None:
            fix = "pass its states through delaykit.functional.event_gradients.rescale_gradient every ten steps"
            warn_of_explosion(delays, self.operator.where, fix)
        return (delays, *of_values)
