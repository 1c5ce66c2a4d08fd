"""Running sums over time, with a decay: a leaky integrator a neuron.

``y[t] = decay y[t - 1] + x[t]``

Its adjoint is the same sum from the last step to the first, and the decay's gradient correlates that with the output of
the step before; the output is all that is kept. Both are running sums again, so gradients of gradients are right, too.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from delaykit.errors import ShapeError
from delaykit.functional.dispatch import implementation_of, wants_reference
from delaykit.functional.inputs import check_operands
from delaykit.functional.running_sum import reference


def running_sum(x: Tensor, decay: Tensor, reverse: bool = False) -> Tensor:
    """Sum a sequence up over time.

    ``y[t, b, c] = decay[c] y[t - 1, b, c] + x[t, b, c]``

    Args:
        x: ``(time, batch, channel)``.
        decay: factor a step, ``(1,)`` or ``(channel,)``.
        reverse: ``y[t] = decay y[t + 1] + x[t]`` instead.

    Returns:
        The sums, shape and dtype of ``x``; they are made in float32 at least.

    Raises:
        ShapeError: shapes that do not fit each other.

    Example:
        >>> x = torch.tensor([1.0, 0.0, 1.0]).reshape(3, 1, 1)
        >>> running_sum(x, torch.tensor([0.5])).flatten().tolist()
        [1.0, 0.5, 1.25]
    """
    check_operands("running_sum", x=x, decay=decay)
    if x.dim() != 3 or decay.dim() != 1 or len(decay) not in (1, x.shape[2]):
        found = f"x {tuple(x.shape)} and decay {tuple(decay.shape)}"
        raise ShapeError("running_sum", found, "(time, batch, channel) and (1,) or (channel,)", "give one a channel")
    work = torch.promote_types(torch.promote_types(x.dtype, decay.dtype), torch.float32)
    run = reference.running_sum if wants_reference() else _accumulate
    return run(x.to(work), decay.to(work), reverse).to(x.dtype)


def summed(x: Tensor, order: int, reverse: bool) -> Tensor:
    """Sum up over time ``order`` times, without decay and without a graph; ``reverse`` from last to first."""
    for _ in range(order):
        x = implementation_of("running_sum", x.device)(x, None, reverse)
    return x


@torch.library.custom_op(
    "delaykit::running_sum", mutates_args=(), schema="(Tensor x, Tensor decay, bool reverse) -> Tensor"
)
def _accumulate(x: Tensor, decay: Tensor, reverse: bool) -> Tensor:
    return implementation_of("running_sum", x.device)(x, decay, reverse)


@_accumulate.register_fake
def _(x: Tensor, decay: Tensor, reverse: bool) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, decay, ctx.reverse = inputs
    ctx.save_for_backward(decay, output)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    decay, out = ctx.saved_tensors
    later = _accumulate(grad, decay, not ctx.reverse)
    grad_decay = None
    if ctx.needs_input_grad[1]:
        arrived, before = (later[:-1], out[1:]) if ctx.reverse else (later[1:], out[:-1])
        grad_decay = (arrived * before).sum_to_size(1, 1, decay.numel()).flatten()
    return later, grad_decay, None


_accumulate.register_autograd(_backward, setup_context=_keep)
