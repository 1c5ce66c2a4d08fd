"""Delay channels: one causal filter a channel, for dense layers and feature maps alike.

``y[t, b, c, ...] = sum_m value[m, c] x[t - index[m, c], b, c, ...]``

The adjoint is written by hand: the input gradient is the anti-causal twin of the filter, the gradient of the tap values
a correlation of input and output gradient. Only ``x`` and the taps are kept for it. Both are linear filters again, so
gradients of gradients are right, too.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from delaykit.errors import ShapeError
from delaykit.functional.delay_line import reference
from delaykit.functional.dispatch import implementation_of, wants_reference
from delaykit.functional.inputs import check_operands
from delaykit.functional.running_sum.operator import summed
from delaykit.functional.taps import Taps

GATHERED = 8  # multiply-adds that plain torch could do while it gathers a number


def delay_line(x: Tensor, taps: Taps) -> Tensor:
    """Delay every channel of a sequence.

    ``y[t, b, c, ...] = sum_tau response[c, tau] x[t - tau, b, c, ...]``

    Args:
        x: ``(time, batch, channel, *space)``.
        taps: of the layer, ``(m, 1, 1)``, or of every channel, ``(m, 1, channel)`` or ``(m, channel, 1)``.

    Returns:
        The delayed sequence, shape and dtype of ``x``. Taps of order 2 are summed up in float64: over 2000
        steps of spikes and a triangle of spread 10 they drift by 1e-12, and a float32 result is off by its rounding.

    Raises:
        ShapeError: ``x`` has fewer than three dimensions, or the taps do not fit its channels.

    Example:
        >>> from delaykit.arrivals import Linear
        >>> x = torch.tensor([1.0, 0.0, 0.0]).reshape(3, 1, 1)
        >>> delay_line(x, Linear().taps(torch.tensor([[1.25]]))).flatten().tolist()
        [0.0, 0.75, 0.25]
    """
    check_operands("delay_line", x=x, taps=taps.value)
    if x.dim() < 3:
        raise ShapeError(
            "delay_line", f"x {tuple(x.shape)}", "(time, batch, channel, ...)", "add the missing dimension"
        )
    rows, columns = taps.shape
    if rows * columns not in (1, x.shape[2]) or 1 not in (rows, columns):
        found = f"taps for {(rows, columns)} and x of {x.shape[2]} channels"
        raise ShapeError("delay_line", found, "one set of taps, or one a channel", "give delays of shape (1, channel)")
    if wants_reference():
        return reference.delay_line(x, taps)
    return filter_channels(x, taps.index.flatten(1), taps.value.flatten(1), taps.order, True)


@torch.library.custom_op(
    "delaykit::tap_filter",
    mutates_args=(),
    schema="(Tensor x, Tensor index, Tensor value, int order, bool causal) -> Tensor",
)
def filter_channels(x: Tensor, index: Tensor, value: Tensor, order: int, causal: bool) -> Tensor:
    """Filter each channel, ``(time, batch, channel, *space)``, by taps ``(m, channel)``, or by the anti-causal twin."""
    if Taps(index.unsqueeze(1), value.unsqueeze(1), order).is_identity():
        return x.clone(memory_format=torch.contiguous_format)
    work = working_dtype(x, order)
    run = implementation_of("tap_filter", x.device, GATHERED * x.numel() * len(index))
    out = run(_as_maps(x, index).to(work), index, value.to(work), causal)
    return summed(out, order, not causal).view(x.shape).to(x.dtype)


@torch.library.custom_op(
    "delaykit::tap_correlation", mutates_args=(), schema="(Tensor x, Tensor y, Tensor index, int order) -> Tensor"
)
def correlate_channels(x: Tensor, y: Tensor, index: Tensor, order: int) -> Tensor:
    """Give the gradient of each tap's value: what an input, ``index`` steps late, and an output gradient share."""
    work = working_dtype(x, order)
    y = summed(_as_maps(y, index).to(work), order, True)
    run = implementation_of("tap_correlation", x.device, GATHERED * x.numel() * len(index))
    return run(_as_maps(x, index).to(work), y, index)


@torch.library.custom_op(
    "delaykit::tap_gradients",
    mutates_args=(),
    schema="(Tensor x, Tensor y, Tensor index, Tensor value) -> (Tensor, Tensor)",
)
def _channel_gradients(x: Tensor, y: Tensor, index: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Give the gradients of a causal filter's input and of its tap values in one pass; order 0."""
    work = working_dtype(x, 0)
    run = implementation_of("tap_gradients", x.device, 2 * GATHERED * x.numel() * len(index))
    grad_x, grad_value = run(_as_maps(x, index).to(work), _as_maps(y, index).to(work), index, value.to(work))
    return grad_x.view(x.shape).to(x.dtype), grad_value


def working_dtype(x: Tensor, order: int) -> torch.dtype:
    """Choose the dtype of the sums: float64 for running sums, never less than float32."""
    return torch.float64 if order else torch.promote_types(x.dtype, torch.float32)


def _as_maps(x: Tensor, index: Tensor) -> Tensor:
    """View ``(time, batch, channel, *space)`` as ``(time, batch, channel, space)``; one channel if all share."""
    time, batch = x.shape[:2]
    channels = index.shape[1]
    return x.reshape(time, batch, channels, x[0, 0].numel() // channels if x.numel() else 0)


@filter_channels.register_fake
def _(x: Tensor, index: Tensor, value: Tensor, order: int, causal: bool) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


@_channel_gradients.register_fake
def _(x: Tensor, y: Tensor, index: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    grad_x = torch.empty_like(x, memory_format=torch.contiguous_format)
    return grad_x, torch.empty_like(index, dtype=working_dtype(x, 0))


@correlate_channels.register_fake
def _(x: Tensor, y: Tensor, index: Tensor, order: int) -> Tensor:
    return torch.empty_like(index, dtype=working_dtype(x, order))


def _keep_filter(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, index, value, ctx.order, ctx.causal = inputs
    ctx.save_for_backward(x, index, value)


def _filter_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, index, value = ctx.saved_tensors
    if ctx.needs_input_grad[0] and ctx.needs_input_grad[2] and ctx.causal and not ctx.order:
        grad_x, grad_value = _channel_gradients(x, grad, index, value)
        return grad_x, None, grad_value.to(value.dtype), None, None
    grad_x = filter_channels(grad, index, value, ctx.order, not ctx.causal) if ctx.needs_input_grad[0] else None
    grad_value = None
    if ctx.needs_input_grad[2]:
        early, late = (x, grad) if ctx.causal else (grad, x)
        grad_value = correlate_channels(early, late, index, ctx.order).to(value.dtype)
    return grad_x, None, grad_value, None, None


def _keep_gradients(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs)


def _gradients_backward(ctx: Any, grad_gx: Tensor, grad_gv: Tensor) -> tuple[Tensor | None, ...]:
    x, y, index, value = ctx.saved_tensors
    needs_x, needs_y, _, needs_value = ctx.needs_input_grad
    by_x = filter_channels(y, index, grad_gv, 0, False) if needs_x else None
    by_y = None
    if needs_y:
        by_y = filter_channels(grad_gx, index, value, 0, True) + filter_channels(x, index, grad_gv, 0, True)
    by_value = correlate_channels(grad_gx, y, index, 0).to(value.dtype) if needs_value else None
    return by_x, by_y, None, by_value


def _keep_correlation(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, y, index, ctx.order = inputs
    ctx.save_for_backward(x, y, index)


def _correlation_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, y, index = ctx.saved_tensors
    grad_x = filter_channels(y, index, grad, ctx.order, False) if ctx.needs_input_grad[0] else None
    grad_y = filter_channels(x, index, grad, ctx.order, True) if ctx.needs_input_grad[1] else None
    return grad_x, grad_y, None, None


filter_channels.register_autograd(_filter_backward, setup_context=_keep_filter)
correlate_channels.register_autograd(_correlation_backward, setup_context=_keep_correlation)
_channel_gradients.register_autograd(_gradients_backward, setup_context=_keep_gradients)
