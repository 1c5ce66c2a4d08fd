"""The operator: a linear connection with a weight for each synapse and each delay.

``current[t, b, j] = sum_i sum_{tau < depth} taps[j, i, tau] spikes[t - tau, b, i] + bias[j]``

Sparse spikes cost ``spikes * depth * post``: each adds ``depth`` rows of ``post`` numbers to what is to come, and its
row of the gradient is read the same way backwards. Dense input costs ``depth`` matrix products. The measured density
decides. Kept for backward are the spikes and the taps.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from delaykit import checks
from delaykit.errors import ShapeError
from delaykit.functional.derivatives import refuse_second
from delaykit.functional.dispatch import implementation_of, wants_reference
from delaykit.functional.inputs import check_operands, check_tensors
from delaykit.functional.reference import causal_convolution


def tapped_linear(spikes: Tensor, taps: Tensor, bias: Tensor | None = None) -> Tensor:
    """Send spikes through a tensor of taps.

    ``current[t, b, j] = sum_i sum_{tau < depth} taps[j, i, tau] spikes[t - tau, b, i] + bias[j]``

    Args:
        spikes: ``(time, batch, pre)``, any real values.
        taps: ``(post, pre, depth)``. Fastest where post neurons are next to each other in memory (stride 1).
        bias: ``(post,)`` or None; it is not delayed.

    Returns:
        Current ``(time, batch, post)``; the very bits of ``F.linear(spikes, taps[:, :, 0], bias)`` where all later
        taps are zero.

    Raises:
        ShapeError: shapes that do not fit each other.

    Example:
        >>> spikes = torch.tensor([1.0, 0.0, 0.0, 1.0]).reshape(4, 1, 1)
        >>> tapped_linear(spikes, torch.tensor([[[3.0, 2.0, 1.0]]])).flatten().tolist()
        [3.0, 2.0, 1.0, 3.0]

    Reference: arXiv 2604.14096 (the current of a heterogeneous-delay network).
    """
    _check(spikes, taps, bias)
    if wants_reference():
        current = causal_convolution(spikes, taps)
        return current if bias is None else current + bias
    common = torch.promote_types(spikes.dtype, taps.dtype)
    bias = None if bias is None else bias.to(common)
    return _tapped(spikes.to(common), bank_of(taps).to(common), bias)


def tapped_correlation(spikes: Tensor, current: Tensor, depth: int) -> Tensor:
    """Correlate spikes with what they should have caused: the adjoint of :func:`tapped_linear` in its taps.

    ``taps[j, i, tau] = sum_{t, b} current[t, b, j] spikes[t - tau, b, i]``

    Args:
        spikes: ``(time, batch, pre)``.
        current: ``(time, batch, post)``.
        depth: number of delays, tau = 0 .. depth - 1.

    Returns:
        ``(post, pre, depth)``, post neurons next to each other in memory; no gradient is recorded.

    Raises:
        ShapeError: shapes that do not fit each other.
        ConfigError: a depth that is no whole number >= 1, or beyond what memory holds.

    Example:
        >>> spikes = torch.tensor([1.0, 0.0, 1.0]).reshape(3, 1, 1)
        >>> tapped_correlation(spikes, spikes, 3).flatten().tolist()
        [2.0, 0.0, 1.0]
    """
    check_tensors("tapped_correlation", spikes=spikes, current=current)
    checks.whole("tapped_correlation depth", depth, least=1, what="number of delays")
    if spikes.dim() != 3 or current.dim() != 3 or spikes.shape[:2] != current.shape[:2]:
        found = f"spikes {tuple(spikes.shape)}, current {tuple(current.shape)}"
        expected = "(time, batch, pre), (time, batch, post)"
        raise ShapeError("tapped_correlation", found, expected, "give both the same time and batch")
    common = torch.promote_types(spikes.dtype, current.dtype)
    return _correlation(spikes.detach().to(common), current.detach().to(common), depth).permute(2, 0, 1)


def bank_of(taps: Tensor) -> Tensor:
    """Lay taps ``(post, pre, depth)`` out as the kernels read them, contiguous ``(pre, depth, post)``; often free."""
    return taps.permute(1, 2, 0).contiguous()


def is_bare(bank: Tensor) -> bool:
    """Tell whether all taps at tau > 0 are zero; a host sync. In a bank in use one look at tau = 1 says no."""
    return not bool(bank[:, 1:2].any()) and not bool(bank[:, 2:].any())


def _check(spikes: Tensor, taps: Tensor, bias: Tensor | None) -> None:
    where = "tapped_linear"
    check_operands(where, optional=("bias",), spikes=spikes, taps=taps, bias=bias)
    if spikes.dim() != 3 or taps.dim() != 3 or spikes.shape[2] != taps.shape[1] or not taps.shape[2]:
        found = f"spikes {tuple(spikes.shape)} and taps {tuple(taps.shape)}"
        raise ShapeError(where, found, "(time, batch, pre) and (post, pre, depth)", "give both the same pre")
    if bias is not None and bias.shape != taps.shape[:1]:
        found, expected = f"bias {tuple(bias.shape)}", f"({taps.shape[0]},)"
        raise ShapeError(where, found, expected, "give one bias a postsynaptic neuron")


@torch.library.custom_op(
    "delaykit_motifs::tapped_linear", mutates_args=(), schema="(Tensor spikes, Tensor bank, Tensor? bias) -> Tensor"
)
def _tapped(spikes: Tensor, bank: Tensor, bias: Tensor | None) -> Tensor:
    with torch.autocast(spikes.device.type, enabled=False):
        if is_bare(bank):
            return F.linear(spikes, bank[:, 0].t().contiguous(), bias)
        current = implementation_of("motifs_tapped_linear", spikes.device)(spikes, bank)
        return current if bias is None else current.add_(bias)


@torch.library.custom_op(
    "delaykit_motifs::tapped_linear_grad_spikes", mutates_args=(), schema="(Tensor grad, Tensor bank) -> Tensor"
)
def _grad_spikes(grad: Tensor, bank: Tensor) -> Tensor:
    with torch.autocast(grad.device.type, enabled=False):
        return implementation_of("motifs_tapped_adjoint", grad.device)(grad, bank)


@torch.library.custom_op(
    "delaykit_motifs::tapped_correlation", mutates_args=(), schema="(Tensor x, Tensor y, int depth) -> Tensor"
)
def _correlation(x: Tensor, y: Tensor, depth: int) -> Tensor:
    with torch.autocast(x.device.type, enabled=False):
        return implementation_of("motifs_tapped_correlation", x.device)(x, y, depth)


@_tapped.register_fake
def _(spikes: Tensor, bank: Tensor, bias: Tensor | None) -> Tensor:
    return spikes.new_empty(*spikes.shape[:2], bank.shape[2])


@_grad_spikes.register_fake
def _(grad: Tensor, bank: Tensor) -> Tensor:
    return grad.new_empty(*grad.shape[:2], bank.shape[0])


@_correlation.register_fake
def _(x: Tensor, y: Tensor, depth: int) -> Tensor:
    return x.new_empty(x.shape[2], depth, y.shape[2])


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    spikes, bank, _ = inputs
    ctx.save_for_backward(spikes, bank)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    spikes, bank = ctx.saved_tensors
    needs_spikes, needs_bank, needs_bias = ctx.needs_input_grad
    grad = grad.contiguous()
    return (
        _grad_spikes(grad, bank) if needs_spikes else None,
        _correlation(spikes, grad, bank.shape[1]) if needs_bank else None,
        grad.sum((0, 1)) if needs_bias else None,
    )


_tapped.register_autograd(_backward, setup_context=_keep)
refuse_second(_grad_spikes, "tapped_linear")
refuse_second(_correlation, "tapped_linear")
