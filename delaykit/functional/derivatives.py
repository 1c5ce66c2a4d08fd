"""Adjoints written by hand give first derivatives; asked for second ones they say so, instead of zero."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

from delaykit.errors import HistoryError

Backward = TypeVar("Backward", bound=Callable[..., Any])
REFERENCE = "run it under dk.backend('reference'), which is plain torch"
DIFFERENCES = "take them as differences of first derivatives"


def first_only(where: str, fix: str = REFERENCE) -> Callable[[Backward], Backward]:
    """Decorate the backward of a ``torch.autograd.Function`` whose own derivative nobody wrote.

    ``once_differentiable`` lets a loss pass that is linear in the output, with second derivatives of zero, and says the
    rest in words of torch. Here every second derivative through the result raises. ``torch.autograd.grad`` only goes
    where its inputs are: to be met on the way to each of them, the forward pass saves every tensor that the adjoint
    depends on, or an output, which leads to all of them.

    Args:
        where: the operator, for the message.
        fix: how to go on.
    """

    def decorate(backward: Backward) -> Backward:
        @functools.wraps(backward)
        def run(ctx: Any, *grads: Any) -> Any:
            with torch.no_grad():
                out = backward(ctx, *grads)
            if not torch.is_grad_enabled():
                return out
            given = out if isinstance(out, tuple) else (out,)
            ways = [x for x in (*grads, *ctx.saved_tensors) if isinstance(x, Tensor) and x.requires_grad]
            guarded = _Second.apply((where, fix), given, torch.empty(0, requires_grad=True), *ways)
            return guarded if isinstance(out, tuple) else guarded[0]

        return run  # type: ignore[return-value]

    return decorate


def refuse_second(operator: Any, where: str, fix: str = REFERENCE) -> None:
    """Let a custom operator of a backward pass raise where a gradient of its result is wanted.

    Args:
        operator: what ``torch.library.custom_op`` returned.
        where: the operator that it is the adjoint of.
        fix: how to go on.
    """

    def backward(ctx: Any, *grads: Any) -> Any:
        raise _refusal(where, fix)

    operator.register_autograd(backward)


class _Second(torch.autograd.Function):
    """Return gradients as they are; raise where theirs are asked for, on the way to whatever ``ways`` came from."""

    @staticmethod
    def forward(
        ctx: Any, told: tuple[str, str], grads: tuple[Tensor | None, ...], *ways: Tensor
    ) -> tuple[Tensor | None, ...]:
        ctx.told = told
        return tuple(None if grad is None else grad.view_as(grad) for grad in grads)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        raise _refusal(*ctx.told)


def _refusal(where: str, fix: str) -> HistoryError:
    return HistoryError(where, "second derivatives (create_graph=True)", "first derivatives only", fix)
