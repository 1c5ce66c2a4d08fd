"""A linear connection whose synapses linger: each current decays at its own rate.

``I_ji[t] = decay_ji I_ji[t - 1] + weight_ji spikes_i[t]``, ``current_j = sum_i I_ji + bias_j``

As with delays, the shape of the decays says what it costs. One a layer or a presynaptic neuron filters the spikes
before the product, one a postsynaptic neuron the currents after it, and one a synapse is swept forwards and backwards
without ever keeping a number per synapse and step: backward needs the spikes only.

A neuron that leaks by itself, ``V[t] = leak V[t-1] + current[t]``, would let such currents decay twice. What it must be
fed to hold ``sum_i I_ji`` is their change beyond its own leak, which is nothing but the product where the two agree:

    current_j[t] = sum_i I_ji[t] - leak_j sum_i I_ji[t-1] = sum_i weight_ji (x_i[t] + (decay_ji - leak_j) X_ji[t-1])
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from delaykit.errors import ShapeError
from delaykit.functional.derivatives import refuse_second
from delaykit.functional.dispatch import implementation_of, wants_reference
from delaykit.functional.filtered_linear import reference
from delaykit.functional.inputs import as_it_is, check_operands
from delaykit.functional.running_sum.operator import running_sum


def filtered_linear(
    spikes: Tensor, weight: Tensor, decay: Tensor, bias: Tensor | None = None, leak: Tensor | None = None
) -> Tensor:
    """Let currents decay on their way through a linear connection.

    ``current[t, b, j] = sum_i weight[j, i] sum_tau decay[j, i]^tau spikes[t - tau, b, i] + bias[j]``, and with a leak
    ``current[t] - leak current[t-1] + bias``.

    Args:
        spikes: ``(time, batch, pre)``.
        weight: ``(post, pre)``.
        decay: factor a step, in [0, 1]; ``(1, 1)``, ``(1, pre)``, ``(post, 1)`` or ``(post, pre)``.
        bias: ``(post,)`` or None; it does not linger.
        leak: decay a step of the neuron's own state, ``(1, 1)`` or ``(post, 1)``; None for a neuron without.

    Returns:
        Current ``(time, batch, post)``.

    Raises:
        ShapeError: shapes that do not fit each other.

    Example:
        >>> spikes = torch.tensor([1.0, 0.0, 0.0]).reshape(3, 1, 1)
        >>> filtered_linear(spikes, torch.tensor([[2.0]]), torch.tensor([[0.5]])).flatten().tolist()
        [2.0, 1.0, 0.5]
        >>> filtered_linear(spikes, torch.tensor([[2.0]]), torch.tensor([[0.5]]), None, torch.tensor([[0.5]])).tolist()
        [[[2.0]], [[0.0]], [[0.0]]]

    Reference:
        Deng et al., "HetSyn": the input current of a neuron with synapse-specific time constants. That the paper's
        V = sum_i I - J is the bare neuron fed this current is ours.
    """
    _check(spikes, weight, decay, bias, leak)
    if wants_reference():
        return reference.filtered_linear(spikes, weight, decay, bias, leak)
    if leak is not None:
        return _beyond_leak(spikes, weight, decay, bias, leak)
    if decay.shape[0] == 1:
        return F.linear(running_sum(spikes, decay.flatten()), weight, bias)
    if decay.shape[1] == 1:
        current = running_sum(F.linear(spikes, weight), decay.flatten())
    else:
        common = torch.promote_types(torch.promote_types(spikes.dtype, weight.dtype), torch.float32)
        current = _filter(spikes.to(common), as_it_is(decay).to(common), as_it_is(weight).to(common))
    return current if bias is None else current + bias.to(current.dtype)


def _beyond_leak(spikes: Tensor, weight: Tensor, decay: Tensor, bias: Tensor | None, leak: Tensor) -> Tensor:
    """Add to the bare product what is left of earlier spikes beyond the neuron's leak: exactly 0 where they agree."""
    past = spikes[:-1]
    if decay.shape[1] == 1:
        product = F.linear(spikes, weight)
        rest = (decay - leak).flatten().to(product.dtype) * running_sum(product[:-1], decay.flatten())
        product = product if bias is None else product + bias.to(product.dtype)
    else:
        product = F.linear(spikes, weight, bias)
        beyond = weight * (decay - leak).to(weight.dtype)
        rest = filtered_linear(past, beyond, decay).to(product.dtype)
    return product + F.pad(rest, (0, 0, 0, 0, 1, 0))[: len(spikes)]


def _check(spikes: Tensor, weight: Tensor, decay: Tensor, bias: Tensor | None, leak: Tensor | None) -> None:
    where = "filtered_linear"
    check_operands(where, optional=("bias", "leak"), spikes=spikes, weight=weight, decay=decay, bias=bias, leak=leak)
    if spikes.dim() != 3 or weight.dim() != 2 or spikes.shape[2] != weight.shape[1]:
        found = f"spikes {tuple(spikes.shape)} and weight {tuple(weight.shape)}"
        raise ShapeError(where, found, "(time, batch, pre) and (post, pre)", "give both the same pre")
    post, pre = weight.shape
    if decay.dim() != 2 or decay.shape[0] not in (1, post) or decay.shape[1] not in (1, pre):
        expected = f"(1, 1), (1, {pre}), ({post}, 1) or ({post}, {pre})"
        raise ShapeError(where, f"decay {tuple(decay.shape)}", expected, "give decays of such a shape")
    if bias is not None and bias.shape != (post,):
        raise ShapeError(where, f"bias {tuple(bias.shape)}", f"({post},)", "give one bias a postsynaptic neuron")
    if leak is not None and leak.shape not in ((1, 1), (post, 1)):
        raise ShapeError(where, f"leak {tuple(leak.shape)}", f"(1, 1) or ({post}, 1)", "give one leak a neuron")


@torch.library.custom_op(
    "delaykit::decay_filter", mutates_args=(), schema="(Tensor x, Tensor decay, Tensor weight) -> Tensor"
)
def _filter(x: Tensor, decay: Tensor, weight: Tensor) -> Tensor:
    return implementation_of("decay_filter", x.device)(x, decay, weight)


@torch.library.custom_op(
    "delaykit::decay_filter_gradient",
    mutates_args=(),
    schema="(Tensor x, Tensor y, Tensor decay, Tensor weight, bool needs_grad_x) -> (Tensor, Tensor, Tensor)",
)
def _filter_gradient(
    x: Tensor, y: Tensor, decay: Tensor, weight: Tensor, needs_grad_x: bool
) -> tuple[Tensor, Tensor, Tensor]:
    return implementation_of("decay_filter_gradient", x.device)(x, y.contiguous(), decay, weight, needs_grad_x)


@_filter.register_fake
def _(x: Tensor, decay: Tensor, weight: Tensor) -> Tensor:
    return x.new_empty(*x.shape[:2], weight.shape[0])


@_filter_gradient.register_fake
def _(x: Tensor, y: Tensor, decay: Tensor, weight: Tensor, needs_grad_x: bool) -> tuple[Tensor, Tensor, Tensor]:
    of_x, *others = (torch.empty_like(t, memory_format=torch.contiguous_format) for t in (x, decay, weight))
    return of_x if needs_grad_x else x.new_empty(0), others[0], others[1]


def _keep_filter(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _filter_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, decay, weight = ctx.saved_tensors
    needs_grad_x = bool(ctx.needs_input_grad[0])
    grad_x, grad_decay, grad_weight = _filter_gradient(x, grad, decay, weight, needs_grad_x)
    return grad_x if needs_grad_x else None, grad_decay, grad_weight


_filter.register_autograd(_filter_backward, setup_context=_keep_filter)
refuse_second(_filter_gradient, "filtered_linear")
