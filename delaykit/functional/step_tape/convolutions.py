"""Delays of pairs of channels of a convolution, step by step: the tape that folds the convolution in.

It remembers the input as it came, once, whatever the number of pairs. A step reads what arrives for a few output
channels at a time and convolves it; backward, what a step's input gave to later outputs is read likewise, for a few
input channels at a time, and goes back through the convolution.
"""

from __future__ import annotations

import torch
from torch import Tensor

from delaykit.errors import ShapeError
from delaykit.functional.delayed_convolution.operator import at_a_time, outputs_of
from delaykit.functional.delayed_convolution.spatial import Convolution
from delaykit.functional.step_tape.filters import Filter, aligned
from delaykit.functional.step_tape.operator import Tape, rows_dtype
from delaykit.functional.step_tape.recording import Recording
from delaykit.functional.step_tape.segment_operators import FilterOnly, FilterOperator, Gradients, SegmentOperator
from delaykit.functional.taps import Taps


class ConvolutionFilter(Filter):
    """Delay and convolve each pair of channels by its own taps.

    Args:
        taps: ``(m, post, fan_in)``.
        convolution: the convolution.
        shapes: of an input and of an output, ``(batch, channel, *space)``.
        dtype: of the rows; taps of order 2 keep their float64.
    """

    def __init__(
        self, taps: Taps, convolution: Convolution, shapes: tuple[torch.Size, torch.Size], dtype: torch.dtype
    ) -> None:
        self.inputs, self.outputs, self.order = convolution.pre, convolution.post, taps.order
        self.parameters = (taps.value, convolution.weight)
        self.convolution, self.shapes, self.index = convolution, shapes, taps.index
        self.reach = int(taps.index.max()) + 1
        self.dtype, self.work = dtype, torch.float64 if taps.order == 2 else dtype
        self.value = taps.value.detach().to(self.work)
        self.kernels = convolution.kernels().detach().to(self.work)
        self._from_input = [convolution.by_input(x.movedim(0, -1)).movedim(-1, 0) for x in (self.index, self.value)]
        self._kernels_from_input = convolution.by_input(self.kernels)

    def read(self, rows: Tensor, row: int, out: Tensor) -> None:
        each = at_a_time(self.convolution.fan_in * rows.shape[2])
        for first in range(0, self.outputs, each):
            last = min(self.outputs, first + each)
            sources = self.convolution.sources_of(first, last)
            late = self._gathered(rows, sources, row - self.index[:, first:last], self.value[:, first:last], 0)
            current = self.convolution.into(late, self.kernels[first:last])
            out[first:last] = current.flatten(2).transpose(0, 1)

    def read_back(self, rows: Tensor, row: int, out: Tensor) -> None:
        index, value = self._from_input
        each = at_a_time(value.shape[2] * rows.shape[2])
        for first in range(0, self.inputs, each):
            last = min(self.inputs, first + each)
            targets = self.convolution.targets_of(first, last)
            late = self._gathered(rows, targets, row + index[:, first:last], value[:, first:last], 1)
            with torch.enable_grad():
                x = torch.zeros(self.shapes[0][0], last - first, *self.shapes[0][2:], dtype=self.work,
                                device=rows.device, requires_grad=True)  # fmt: skip
                apart = self.convolution.out_of(x, self._kernels_from_input[first:last])
            (back,) = torch.autograd.grad(apart, x, late)
            out[first:last] = back.flatten(2).transpose(0, 1)

    def _gathered(self, rows: Tensor, channels: Tensor, at: Tensor, value: Tensor, side: int) -> Tensor:
        """Read ``sum_m value[m] rows[channel, at[m]]`` of every pair, as ``(batch, pair, *space)``."""
        total = 0.0
        for step, factor in zip(at.flatten(1), value.flatten(1), strict=True):
            total = total + factor.unsqueeze(1) * rows[channels, step].to(self.work)
        batch, _, *space = self.shapes[side]
        assert isinstance(total, Tensor)
        return total.view(len(channels), batch, *space).transpose(0, 1)

    def correlate(self, gradients: Tensor, rows: Tensor, start: int, stop: int) -> tuple[Tensor | None, ...]:
        value, weight = self.parameters
        seen, series = aligned(gradients, rows, start, stop, self.reach)
        x, late = (self._steps(stream.to(self.work), side) for side, stream in enumerate((series, seen)))
        taps, kernels = torch.empty_like(self.value), torch.empty_like(self.kernels)
        each = at_a_time(x.numel() // self.convolution.groups)
        for first in range(0, self.outputs, each):
            last = min(self.outputs, first + each)
            with torch.enable_grad():
                own = [x[first:last].detach().requires_grad_() for x in (self.value.transpose(0, 1), self.kernels)]
                index = self.index[:, first:last]
                # The running sums of order 2 are in the gradients already.
                y = outputs_of(x, own[1], own[0].transpose(0, 1), index, self.convolution, first, last, 0)
            found = torch.autograd.grad(y, own, late[:, :, first:last])
            taps[:, first:last], kernels[first:last] = found[0].transpose(0, 1), found[1]
        if self.convolution.transposed:
            kernels = self.convolution.by_input(kernels)
        return (
            taps.to(value.dtype) if value.requires_grad else None,
            kernels.to(weight.dtype) if weight.requires_grad else None,
        )

    def _steps(self, stream: Tensor, side: int) -> Tensor:
        """View ``(channel, time, chunk)`` as ``(time, batch, channel, *space)``."""
        batch, _, *space = self.shapes[side]
        return stream.view(*stream.shape[:2], batch, *space).movedim(0, 2)


class ConvolutionOperator(FilterOperator):
    """A filter that changes space, and a bias a channel."""

    def __init__(self, filter: ConvolutionFilter, identity: bool, device: torch.device, bias: Tensor | None) -> None:
        super().__init__(filter, identity, filter.shapes[1], filter.dtype, device, None, bias)
        self.maps = filter

    def forward(self, x: Tensor, recording: Recording, row: int, keep: int | None) -> Tensor:
        if self.identity:
            return self.maps.convolution.whole(x, self.bias)
        y = self.empty(self.filter.outputs)
        self.filtered(recording.rows, row, self.turned(y), self._sums)
        return (y if self.bias is None else y.add_(self.bias.view(-1, *[1] * len(self.space)))).to(x.dtype)

    def gradients(self, recording: Recording, last: int) -> Gradients:
        return _ConvolutionGradients(self, recording, last)


class _ConvolutionGradients(FilterOnly):
    operator: ConvolutionOperator

    def input(self, row: int) -> Tensor:
        maps = self.operator.maps
        out = torch.empty(maps.shapes[0], dtype=self.operator.dtype, device=self.operator.device)
        maps.read_back(self.stream.rows, row, out.flatten(2).transpose(0, 1))
        return out


class ConvolutionTape(Tape):
    """Delay the pairs of channels of a convolution.

    Args:
        taps: ``(m, post, fan_in)``.
        convolution: the convolution.
        bias: ``(post,)`` or None.
        remember: see :class:`~delaykit.functional.step_tape.operator.Tape`.

    Example:
        >>> conv = Convolution(torch.ones(1, 1, 1), groups=1, options={})
        >>> tape = ConvolutionTape(Taps(torch.tensor([[[1]]]), torch.ones(1, 1, 1)), conv)
        >>> [tape.step(torch.full((1, 1, 1), float(t))).item() for t in (1, 2, 3)]
        [0.0, 1.0, 2.0]
    """

    def __init__(
        self, taps: Taps, convolution: Convolution, bias: Tensor | None = None, *, remember: int | None = None
    ) -> None:
        super().__init__(remember)
        self._parameters = (taps, convolution, bias)

    def rebind(self, taps: Taps, convolution: Convolution, bias: Tensor | None = None) -> None:
        """Start a new segment with these parameters."""
        self._rebind()
        self._parameters = (taps, convolution, bias)

    def _operator(self, x: Tensor) -> SegmentOperator:
        taps, convolution, bias = self._parameters
        if x.dim() != convolution.weight.dim() or x.shape[1] != convolution.pre:
            expected = f"(batch, {convolution.pre}" + ", space" * (convolution.weight.dim() - 2) + ")"
            raise ShapeError("ConvolutionTape", f"an input {tuple(x.shape)}", expected, "pass one time step")
        dtype = rows_dtype(x, convolution.weight.dtype, "ConvolutionTape")
        after = convolution.whole(x.detach().to(dtype), None).shape
        filter = ConvolutionFilter(taps, convolution, (x.shape, after), dtype)
        return ConvolutionOperator(filter, taps.is_identity(), x.device, bias)
