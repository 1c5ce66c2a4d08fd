"""Step mode without ring buffers: delays inside anybody's own time loop.

A tape remembers the input of one connection in one sequence. Each :meth:`Tape.step` writes the new input into a growing
recording, reads the few taps it needs and records one autograd node, so a step costs the same for any delay. The nodes
are chained by a token, so that autograd visits them last step first: each writes its output gradient down, and
completes the gradient of its own input from what the later ones wrote,
``grad_x[t] = sum_tau K[tau]^T grad_y[t + tau]``. The gradients of all parameters are made once, in the first recorded
node, from the two recorded streams.

A *segment* runs from construction, :meth:`Tape.detach` or :meth:`Tape.rebind` to the next; parameters are constant in
it. What is recorded are *inputs*: those remembered from an earlier segment are filtered with the new parameters, and
their gradients see it, but no gradient reaches the old inputs.

Under ``no_grad`` and ``inference_mode`` only as many steps are kept as the taps reach back, also where a graph began
before: once no recorded input can be read any more, a segment of its own begins.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple, NoReturn

import torch
from torch import Tensor

from delaykit.errors import HistoryError, ShapeError
from delaykit.functional.eager import eager
from delaykit.functional.inputs import check_tensors, refuse_transforms
from delaykit.functional.step_tape.cells.basis import Bells
from delaykit.functional.step_tape.cells.bells import BellFilter
from delaykit.functional.step_tape.cells.reading import CellFilter, CellOperator
from delaykit.functional.step_tape.cells.spreads import SpreadFilter
from delaykit.functional.step_tape.cells.tents import TentFilter
from delaykit.functional.step_tape.filters import ChannelFilter, ResponseFilter, synapse_filter
from delaykit.functional.step_tape.products import AxonalOperator, DendriticOperator
from delaykit.functional.step_tape.segment import Segment, Step, refuse_backward
from delaykit.functional.step_tape.segment_operators import FilterOperator, LineOperator, SegmentOperator
from delaykit.functional.taps import Taps
from delaykit.functional.tents import OwnTents, Tents

Arrivals = Taps | Tents | OwnTents | Bells


class Signature(NamedTuple):
    """What must stay the same from step to step of one tape."""

    batch: int
    space: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device


class Tape(ABC):
    """Remember one stream of one connection in one sequence; hand out what its delays let through, step by step.

    Args:
        remember: how many steps survive :meth:`detach`; default twice what the taps reach. Give the largest delay the
            parameters may ever take (plus the kernel's width) where a stream lives longer than a segment.

    Attributes:
        steps: steps taken since construction.
        signature: :class:`Signature` of the first step, None before it.
    """

    def __init__(self, remember: int | None = None) -> None:
        self.steps = 0
        self.signature: Signature | None = None
        self._expected: tuple[torch.Size, torch.dtype, torch.device] | None = None
        self._remember = remember
        self._segment: Segment | None = None
        self._token: Tensor | None = None
        self._past: Tensor | None = None
        self._remains: Tensor | None = None
        self._through = False  # whether a graph leads to a remembered input
        self._quiet = 0  # steps without a gradient since the last recorded one
        self._forgot = False
        self._bound = True

    @abstractmethod
    def _operator(self, x: Tensor) -> SegmentOperator:
        """Make the operator of a segment whose inputs look like ``x``."""

    @eager  # a recording is a side effect
    def step(self, x: Tensor) -> Tensor:
        """Take the input of this time step, ``(batch, channel, *space)``, and give the output of this time step.

        Raises:
            HistoryError: the input's batch, space, dtype or device changed, the parameters were not handed over after
                :meth:`detach`, or the step is taken inside a backward pass (activation checkpointing).
            ShapeError: the input does not fit the connection.
        """
        refuse_backward(type(self).__name__)
        segment = self._segment
        if segment is None:
            segment = self._open(x)
        elif (x.shape, x.dtype, x.device) != self._expected:
            self._refuse(x)
        self.steps += 1
        if torch.is_grad_enabled():
            self._quiet = 0
            if self._token is not None:
                self._through = self._through or x.requires_grad
                y, self._token = self._record(segment, x, self._token)
                return y
            self._through = self._through or x.requires_grad
            if x.requires_grad or segment.trainable:
                y, self._token = self._record(segment, x, None, *segment.operator.parameters)
                return y
        elif self._token is not None:
            segment = self._pause(segment, x)
        return segment.forward(x)

    def _pause(self, segment: Segment, x: Tensor) -> Segment:
        """Take a step without a gradient on a graph; let the graph go when no later step can reach it."""
        self._quiet += 1
        if self._quiet <= segment.operator.outlasts:
            segment.operator.pause()
            return segment
        self.detach()
        self._bound, self._quiet = True, 0
        return self._open(x)

    def _record(
        self, segment: Segment, x: Tensor, token: Tensor | None, *parameters: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Take one step on the graph; only the first of a segment is given the parameters."""
        return Step.apply(segment, x, token, *parameters)

    def silent(self, before_last: bool = False) -> bool:
        """Tell whether no remembered input can reach a later output, in value or gradient.

        ``before_last`` leaves the newest input out. Host sync: asked where something unusual happened.
        """
        segment, past = self._segment, self._past
        if segment is None:
            return past is None or not bool(past.any())
        recording, reach = segment.recording, segment.operator.filter.reach
        end = recording.size - before_last
        start = max(recording.pad, recording.size - reach + (not before_last))
        if start >= end or segment.operator.identity:
            return True
        return not self._through and not bool(recording.rows[:, start:end].any())

    def graph_under_way(self) -> bool:
        """Tell whether a later gradient has to reach an input of this segment, or a weight that made a product."""
        segment = self._segment
        if segment is None or segment.operator.filter.reach < 2 or segment.operator.identity:
            return False
        return self._through or (self._token is not None and segment.operator.keeps_products)

    @property
    def recorded(self) -> bool:
        """Whether the graph of a step is held."""
        return self._token is not None

    def detach(self) -> None:
        """Keep the remembered inputs, forget their graph; the next step needs :meth:`rebind` first (TBPTT)."""
        self._bound = False
        segment, self._segment, self._token, self._through = self._segment, None, None, False
        if segment is not None:
            recording = segment.recording
            self._past = recording.newest(segment.keep)
            self._remains = segment.operator.remains(recording, segment.keep)
            self._forgot |= recording.forgot or self._past.shape[1] < recording.size - recording.pad

    def _rebind(self) -> None:
        self.detach()
        self._bound = True

    def _open(self, x: Tensor) -> Segment:
        check_tensors(type(self).__name__, x=x)
        refuse_transforms(type(self).__name__, x, remembers=True)
        if not self._bound:
            raise HistoryError(
                type(self).__name__, "a step after detach()", "parameters for the new segment", "call rebind(...)"
            )
        if self.signature is None:
            self.signature = Signature(x.shape[0], tuple(x.shape[2:]), x.dtype, x.device)
            self._expected = (x.shape, x.dtype, x.device)
        elif (x.shape, x.dtype, x.device) != self._expected:
            self._refuse(x)
        with torch.inference_mode(False), torch.no_grad():
            operator = self._operator(x)
            reach = operator.filter.reach
            kept = 0 if self._past is None else self._past.shape[1]
            if self._forgot and reach - 1 > kept:
                raise HistoryError(
                    type(self).__name__,
                    f"delays that reach back {reach - 1} steps into a stream of which {kept} were kept",
                    f"remember >= {reach - 1}",
                    "make the tape with remember= the largest delay it may ever have",
                )
            channels, chunk = x.shape[1], x.shape[0] * x.shape[2:].numel()
            recording = operator.recording(channels, chunk, reach - 1, operator.dtype, x.device)
            if self._past is not None:
                recording.extend(self._past)
            operator.replay(recording, self._remains)
        keep = 2 * reach if self._remember is None else max(reach, self._remember)
        self._segment = Segment(operator, recording, keep)
        return self._segment

    def _refuse(self, x: Tensor) -> NoReturn:
        raise HistoryError(
            type(self).__name__,
            f"an input of {tuple(x.shape)}, {x.dtype}, {x.device} in step {self.steps}",
            f"{self._expected} as in step 0",
            "start a new tape for a new sequence",
        )


def rows_dtype(x: Tensor, expected: torch.dtype, where: str) -> torch.dtype:
    """Return the dtype of the rows, that of the parameters; raise for an input of another one, but under autocast."""
    if x.dtype != expected and not torch.is_autocast_enabled(x.device.type):
        raise ShapeError(where, f"an input of {x.dtype}", f"{expected}, that of the parameters", "convert one of them")
    return expected


class LineTape(Tape):
    """Delay every channel: ``y[t, b, c] = sum_tau h[c, tau] x[t - tau, b, c]``, also of feature maps.

    Args:
        taps: of a layer or of channels; exactly one of ``A``, ``B`` may differ from 1.
        remember: see :class:`Tape`.

    Example:
        >>> from delaykit.functional.taps import Taps
        >>> tape = LineTape(Taps(torch.tensor([[[1]]]), torch.ones(1, 1, 1)))
        >>> [tape.step(torch.tensor([[float(t)]])).item() for t in (1, 2, 3)]
        [0.0, 1.0, 2.0]
    """

    def __init__(self, taps: Taps, *, remember: int | None = None) -> None:
        super().__init__(remember)
        self._taps = taps

    def rebind(self, taps: Taps) -> None:
        """Start a new segment with these taps."""
        self._rebind()
        self._taps = taps

    def _operator(self, x: Tensor) -> SegmentOperator:
        taps, channels = self._taps, _channels_of(self._taps)
        if x.dim() < 2 or channels not in (1, x.shape[1]):
            raise ShapeError("LineTape", f"an input {tuple(x.shape)}", f"(batch, {channels}, ...)", "match the taps")
        dtype = rows_dtype(x, x.dtype if taps.order == 2 else taps.value.dtype, "LineTape")
        filter = ChannelFilter(taps, x.shape[1], dtype)
        return LineOperator(filter, taps.is_identity(), x.shape, dtype, x.device)


def _channels_of(taps: Taps) -> int:
    rows, columns = taps.index.shape[1:]
    if rows > 1 and columns > 1:
        raise ShapeError(
            "LineTape", f"taps for {rows} x {columns} synapses", "taps for channels", "use LinearTape for synapses"
        )
    return int(rows * columns)


class LinearTape(Tape):
    """Delay a whole linear connection: ``y[t] = sum_{i, tau} w[j, i] h[., tau] x[t - tau, b, i] + bias[j]``.

    The shape of the taps decides: layer and axonal delays come before the product, dendritic ones after it, synaptic
    ones need a sweep over the synapses. Identity taps give what ``F.linear(x, weight, bias)`` gives, bit by bit.

    Args:
        taps: ``(m, 1, 1)``, ``(m, 1, pre)``, ``(m, post, 1)`` or ``(m, post, pre)``; or, of every synapse, tents for
            which there is a grid (:func:`~delaykit.functional.step_tape.cells.tents.grid_of`), tents of neurons' own
            widths, or bells.
        weight: ``(post, pre)``; for tents times what they are scaled by.
        bias: ``(post,)`` or None.
        behind: whether the line lies behind the product, so that what is under way keeps its weight when another one is
            bound in the middle of a stream; None: as the taps' shape says, which is not sure with one input or output.
        remember: see :class:`Tape`.

    Example:
        >>> from delaykit.functional.taps import Taps
        >>> tape = LinearTape(Taps(torch.tensor([[[2]]]), torch.ones(1, 1, 1)), torch.full((1, 3), 0.5))
        >>> [tape.step(torch.full((1, 3), float(t))).item() for t in (2, 4, 6)]
        [0.0, 0.0, 3.0]
    """

    def __init__(
        self, taps: Arrivals, weight: Tensor, bias: Tensor | None = None, *, behind: bool | None = None,
        remember: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__(remember)
        self._parameters, self._behind = (taps, weight, bias), behind

    def rebind(self, taps: Arrivals, weight: Tensor, bias: Tensor | None = None) -> None:
        """Start a new segment with these parameters."""
        self._rebind()
        self._parameters = (taps, weight, bias)

    def _operator(self, x: Tensor) -> SegmentOperator:
        taps, weight, bias = self._parameters
        post, pre = weight.shape
        _check_input("LinearTape", x, pre)
        rows, columns = taps.shape
        if rows not in (1, post) or columns not in (1, pre):
            raise ShapeError(
                "LinearTape", f"taps for {rows} x {columns}", f"1 or {post} x 1 or {pre}", "match taps and weight"
            )
        dtype = rows_dtype(x, weight.dtype, "LinearTape")
        if not isinstance(taps, Taps):
            return CellOperator(_cell_filter(taps, weight), False, x.shape, dtype, x.device, bias=bias)
        rest = (taps.is_identity(), x.shape, dtype, x.device)
        behind = rows > 1 and columns == 1 if self._behind is None else self._behind
        if rows > 1 and not behind:
            return FilterOperator(synapse_filter(taps, weight), *rest, weight=weight, bias=bias)
        if behind:
            return DendriticOperator(ChannelFilter(taps, post, dtype), *rest, weight, bias)
        return AxonalOperator(ChannelFilter(taps, pre, dtype), *rest, weight, bias)


def _cell_filter(shape: Tents | OwnTents | Bells, weight: Tensor) -> CellFilter:
    if isinstance(shape, Tents):
        return TentFilter(shape, weight)
    return SpreadFilter(shape, weight) if isinstance(shape, OwnTents) else BellFilter(shape, weight)


class ResponseTape(Tape):
    """Convolve with any impulse response: ``y[t] = sum_{i, tau} K[j, i, tau] x[t - tau, b, i] + bias[j]``.

    The general fallback: a step costs one product with ``depth * pre`` columns.

    Args:
        response: ``(post, pre, depth)``.
        bias: ``(post,)`` or None.
        remember: see :class:`Tape`.

    Example:
        >>> tape = ResponseTape(torch.tensor([[[0.0, 1.0, 0.5]]]))
        >>> [tape.step(torch.tensor([[x]])).item() for x in (1.0, 0.0, 0.0, 0.0)]
        [0.0, 1.0, 0.5, 0.0]
    """

    def __init__(self, response: Tensor, bias: Tensor | None = None, *, remember: int | None = None) -> None:
        super().__init__(remember)
        self._parameters = (response, bias)

    def rebind(self, response: Tensor, bias: Tensor | None = None) -> None:
        """Start a new segment with this response."""
        self._rebind()
        self._parameters = (response, bias)

    def _operator(self, x: Tensor) -> SegmentOperator:
        response, bias = self._parameters
        if response.dim() != 3 or not response.shape[2]:
            found = f"a response {tuple(response.shape)}"
            raise ShapeError("ResponseTape", found, "(post, pre, depth), of one step at least", "pad it with zeros")
        _check_input("ResponseTape", x, response.shape[1])
        dtype = rows_dtype(x, response.dtype, "ResponseTape")
        return FilterOperator(ResponseFilter(response), False, x.shape, dtype, x.device, bias=bias)


def _check_input(where: str, x: Tensor, pre: int) -> None:
    if x.dim() != 2 or x.shape[1] != pre:
        raise ShapeError(where, f"an input {tuple(x.shape)}", f"(batch, {pre})", "pass one time step, batch first")
