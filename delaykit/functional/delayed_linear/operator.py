"""A linear connection whose synapses deliver late.

``current[t, b, j] = sum_i weight[j, i] sum_tau response[j, i, tau] spikes[t - tau, b, i] + bias[j]``

The shape of the taps says where the delay sits, and so what it costs: one a layer or a presynaptic neuron (delay the
spikes, then one product), one a postsynaptic neuron (one product, then delay the currents), or one a synapse, whose
cost does not depend on the delays' length. Kept for backward are sequences of neurons, never of synapses.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from delaykit.errors import ShapeError
from delaykit.functional.delay_line.operator import correlate_channels, delay_line, filter_channels, working_dtype
from delaykit.functional.delayed_linear import reference
from delaykit.functional.delayed_linear.product import linear
from delaykit.functional.dispatch import implementation_of, wants_reference
from delaykit.functional.inputs import as_it_is, check_operands
from delaykit.functional.running_sum.operator import summed
from delaykit.functional.taps import Taps


def delayed_linear(spikes: Tensor, weight: Tensor, taps: Taps, bias: Tensor | None = None) -> Tensor:
    """Delay spikes on their way through a linear connection.

    ``current[t, b, j] = sum_i weight[j, i] sum_tau response[j, i, tau] spikes[t - tau, b, i] + bias[j]``

    Args:
        spikes: ``(time, batch, pre)``.
        weight: ``(post, pre)``.
        taps: ``(m, 1, 1)`` layer, ``(m, 1, pre)`` axonal, ``(m, post, 1)`` dendritic or ``(m, post, pre)`` synaptic.
        bias: ``(post,)`` or None; it is not delayed.

    Returns:
        Current ``(time, batch, post)``; the very bits of ``F.linear(spikes, weight, bias)`` where no tap delays.

    Raises:
        ShapeError: shapes that do not fit each other.

    Example:
        >>> from delaykit.arrivals import Linear
        >>> spikes = torch.eye(3).reshape(3, 1, 3)
        >>> delays = torch.tensor([[0.0, 1.0, 0.5]])
        >>> delayed_linear(spikes, torch.ones(1, 3), Linear().taps(delays)).flatten().tolist()
        [1.0, 0.0, 1.5]
    """
    _check(spikes, weight, taps, bias)
    if wants_reference():
        return reference.delayed_linear(spikes, weight, taps, bias)
    weight = as_it_is(weight)
    if taps.shape[0] == 1:
        late, known = delay_line(spikes, taps), taps._replace(value=taps.value.detach())
        if torch.compiler.is_compiling() or known.is_identity():  # then the bits are those of the product alone
            return F.linear(late, weight, bias)
        return linear(late, weight, bias)
    common = torch.promote_types(spikes.dtype, weight.dtype)
    bias = None if bias is None else bias.to(common)
    return _delayed(spikes.to(common), weight.to(common), bias, taps.index, taps.value, taps.order)


def _check(spikes: Tensor, weight: Tensor, taps: Taps, bias: Tensor | None) -> None:
    where = "delayed_linear"
    check_operands(where, optional=("bias",), spikes=spikes, weight=weight, bias=bias, taps=taps.value)
    if spikes.dim() != 3 or weight.dim() != 2 or spikes.shape[2] != weight.shape[1]:
        found = f"spikes {tuple(spikes.shape)} and weight {tuple(weight.shape)}"
        raise ShapeError(where, found, "(time, batch, pre) and (post, pre)", "give both the same pre")
    post, pre = weight.shape
    if taps.shape[0] not in (1, post) or taps.shape[1] not in (1, pre):
        expected = f"(1, 1), (1, {pre}), ({post}, 1) or ({post}, {pre})"
        raise ShapeError(where, f"taps for {taps.shape}", expected, "make the taps from delays of such a shape")
    if bias is not None and bias.shape != (post,):
        raise ShapeError(where, f"bias {tuple(bias.shape)}", f"({post},)", "give one bias a postsynaptic neuron")


@torch.library.custom_op(
    "delaykit::delayed_linear",
    mutates_args=(),
    schema="(Tensor spikes, Tensor weight, Tensor? bias, Tensor index, Tensor value, int order) -> Tensor",
)
def _delayed(spikes: Tensor, weight: Tensor, bias: Tensor | None, index: Tensor, value: Tensor, order: int) -> Tensor:
    with torch.autocast(spikes.device.type, enabled=False):
        if Taps(index, value, order).is_identity():
            return F.linear(spikes, weight, bias)
        if index.shape[2] == 1:  # dendritic
            current = filter_channels(F.linear(spikes, weight), index[:, :, 0], value[:, :, 0], order, True)
        else:
            current = _filter_synapses(spikes, weight * value, index, order, True)
        return current if bias is None else current.add_(bias)


@torch.library.custom_op(
    "delaykit::synapse_filter",
    mutates_args=(),
    schema="(Tensor x, Tensor value, Tensor index, int order, bool causal) -> Tensor",
)
def _filter_synapses(x: Tensor, value: Tensor, index: Tensor, order: int, causal: bool) -> Tensor:
    work = working_dtype(x, order)
    run = implementation_of("synapse_filter", x.device, x.shape[0] * x.shape[1] * index.numel())
    out = run(x.to(work), index, value.to(work), causal)
    return summed(out, order, not causal).to(x.dtype)


@torch.library.custom_op(
    "delaykit::synapse_correlation", mutates_args=(), schema="(Tensor x, Tensor y, Tensor index, int order) -> Tensor"
)
def _correlate_synapses(x: Tensor, y: Tensor, index: Tensor, order: int) -> Tensor:
    work = working_dtype(x, order)
    run = implementation_of("synapse_correlation", x.device, x.shape[0] * x.shape[1] * index.numel())
    return run(x.to(work), summed(y.to(work), order, True), index)


@_delayed.register_fake
def _(spikes: Tensor, weight: Tensor, bias: Tensor | None, index: Tensor, value: Tensor, order: int) -> Tensor:
    return spikes.new_empty(*spikes.shape[:2], weight.shape[0])


@_filter_synapses.register_fake
def _(x: Tensor, value: Tensor, index: Tensor, order: int, causal: bool) -> Tensor:
    return x.new_empty(*x.shape[:2], index.shape[1])


@_correlate_synapses.register_fake
def _(x: Tensor, y: Tensor, index: Tensor, order: int) -> Tensor:
    return index.new_empty(index.shape, dtype=working_dtype(x, order))


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    spikes, weight, _, index, value, ctx.order = inputs
    ctx.save_for_backward(spikes, weight, index, value)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    rule = _dendritic_backward if ctx.saved_tensors[2].shape[2] == 1 else _synaptic_backward
    grad_spikes, grad_weight, grad_value = rule(ctx, grad)
    grad_bias = grad.sum((0, 1)) if ctx.needs_input_grad[2] else None
    return grad_spikes, grad_weight, grad_bias, None, grad_value, None


def _dendritic_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    spikes, weight, index, value = ctx.saved_tensors
    needs_spikes, needs_weight, _, _, needs_value, _ = ctx.needs_input_grad
    index, grad_spikes, grad_weight, grad_value = index[:, :, 0], None, None, None
    if needs_spikes or needs_weight:
        early = filter_channels(grad, index, value[:, :, 0], ctx.order, False)
        grad_spikes = early @ weight if needs_spikes else None
        grad_weight = early.flatten(0, 1).T @ spikes.flatten(0, 1) if needs_weight else None
    if needs_value:  # one more product costs less than keeping the currents
        current = spikes @ weight.T
        grad_value = correlate_channels(current, grad, index, ctx.order).unsqueeze(-1).to(value.dtype)
    return grad_spikes, grad_weight, grad_value


def _synaptic_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    spikes, weight, index, value = ctx.saved_tensors
    needs_spikes, needs_weight, _, _, needs_value, _ = ctx.needs_input_grad
    grad_spikes = grad_weight = grad_value = None
    if needs_spikes:
        strength = (weight * value).transpose(1, 2)
        grad_spikes = _filter_synapses(grad, strength, index.transpose(1, 2), ctx.order, False)
    if needs_weight or needs_value:
        product = _correlate_synapses(spikes, grad, index, ctx.order)
        grad_weight = (product * value).sum(0).to(weight.dtype) if needs_weight else None
        grad_value = (product * weight).to(value.dtype) if needs_value else None
    return grad_spikes, grad_weight, grad_value


def _keep_filter(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, value, index, ctx.order, ctx.causal = inputs
    ctx.save_for_backward(x, value, index)


def _filter_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, value, index = ctx.saved_tensors
    grad_x = grad_value = None
    if ctx.needs_input_grad[0]:
        grad_x = _filter_synapses(grad, value.transpose(1, 2), index.transpose(1, 2), ctx.order, not ctx.causal)
    if ctx.needs_input_grad[1] and ctx.causal:
        grad_value = _correlate_synapses(x, grad, index, ctx.order).to(value.dtype)
    elif ctx.needs_input_grad[1]:
        grad_value = _correlate_synapses(grad, x, index.transpose(1, 2), ctx.order).transpose(1, 2).to(value.dtype)
    return grad_x, grad_value, None, None, None


def _keep_correlation(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, y, index, ctx.order = inputs
    ctx.save_for_backward(x, y, index)


def _correlation_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, y, index = ctx.saved_tensors
    grad_x = grad_y = None
    if ctx.needs_input_grad[0]:
        grad_x = _filter_synapses(y, grad.transpose(1, 2), index.transpose(1, 2), ctx.order, False)
    if ctx.needs_input_grad[1]:
        grad_y = _filter_synapses(x, grad, index, ctx.order, True)
    return grad_x, grad_y, None, None


_delayed.register_autograd(_backward, setup_context=_keep)
_filter_synapses.register_autograd(_filter_backward, setup_context=_keep_filter)
_correlate_synapses.register_autograd(_correlation_backward, setup_context=_keep_correlation)
