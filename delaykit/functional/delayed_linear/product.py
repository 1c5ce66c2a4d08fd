"""A linear map whose input is mostly zero, as spikes are: the product and its weight gradient follow the events."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from delaykit.functional.dispatch import implementation_of
from delaykit.functional.inputs import as_it_is


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Do what ``F.linear`` does, in another order of sums where most of ``x`` is 0.

    Args:
        x: ``(..., pre)``.
        weight: ``(post, pre)``.
        bias: ``(post,)`` or None.

    Example:
        >>> linear(torch.eye(2), torch.tensor([[1.0, 2.0]])).flatten().tolist()
        [1.0, 2.0]
    """
    kinds = {t.dtype for t in (x, weight, bias) if t is not None}
    if len(kinds) > 1 or torch.is_autocast_enabled(x.device.type) or x.ndim < 2:
        return F.linear(x, weight, bias)
    return _product(x.flatten(0, -2), as_it_is(weight), bias).unflatten(0, x.shape[:-1])


@torch.library.custom_op(
    "delaykit::event_product", mutates_args=(), schema="(Tensor x, Tensor weight, Tensor? bias) -> Tensor"
)
def _product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return implementation_of("event_product", x.device, x.numel() * len(weight))(x, weight, bias)


@torch.library.custom_op("delaykit::event_gradient", mutates_args=(), schema="(Tensor grad, Tensor x) -> Tensor")
def _gradient(grad: Tensor, x: Tensor) -> Tensor:
    return implementation_of("event_gradient", x.device, x.numel() * grad.shape[1])(grad, x)


@_product.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return x.new_empty(x.shape[0], weight.shape[0])


@_gradient.register_fake
def _(grad: Tensor, x: Tensor) -> Tensor:
    return x.new_empty(grad.shape[1], x.shape[1])


def _keep_product(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:2])


def _product_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, weight = ctx.saved_tensors
    needs_x, needs_weight, needs_bias = ctx.needs_input_grad
    grad_weight = _gradient(grad, x) if needs_weight else None
    return grad @ weight if needs_x else None, grad_weight, grad.sum(0) if needs_bias else None


def _keep_gradient(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _gradient_backward(ctx: Any, by_weight: Tensor) -> tuple[Tensor | None, ...]:
    grad, x = ctx.saved_tensors
    needs_grad, needs_x = ctx.needs_input_grad
    return _product(x, by_weight, None) if needs_grad else None, grad @ by_weight if needs_x else None


_product.register_autograd(_product_backward, setup_context=_keep_product)
_gradient.register_autograd(_gradient_backward, setup_context=_keep_gradient)
