"""A convolution whose pairs of channels deliver late.

``current[t, b, o] = sum_i kernel[o, i] * (sum_tau response[o, i, tau] spikes[t - tau, b, i]) + bias[o]``

``*`` runs over space, and a delay commutes with it: each output channel has its own delayed copy of the input. The
copies are made for a few output channels at a time, and made again on the way back, so that what is kept, and what is
alive at any time, depends neither on the delays' length nor on the number of pairs. The time does not depend on the
delays' length either: as many products as the convolution itself, and a read of the input a pair and tap.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from delaykit.errors import ShapeError
from delaykit.functional.delay_line.operator import filter_channels
from delaykit.functional.delayed_convolution import reference
from delaykit.functional.delayed_convolution.spatial import Convolution
from delaykit.functional.dispatch import wants_reference
from delaykit.functional.inputs import check_operands
from delaykit.functional.taps import Taps

ALIVE = 2**22  # numbers of delayed copies at a time, unless those of one output channel are more


def delayed_convolution(spikes: Tensor, convolution: Convolution, taps: Taps, bias: Tensor | None = None) -> Tensor:
    """Delay spikes on their way through a convolution, each pair of channels by its own taps.

    Args:
        spikes: ``(time, batch, pre, *space)``.
        convolution: the convolution.
        taps: ``(m, post, fan_in)``.
        bias: ``(post,)`` or None; it is not delayed.

    Returns:
        Current ``(time, batch, post, *space)``.

    Raises:
        ShapeError: shapes that do not fit each other.

    Example:
        >>> from delaykit.arrivals import Linear
        >>> conv = Convolution(torch.ones(1, 2, 1), groups=1, options={})
        >>> spikes = torch.eye(3)[:, :2].reshape(3, 1, 2, 1)
        >>> delayed_convolution(spikes, conv, Linear().taps(torch.tensor([[0.0, 1.0]]))).flatten().tolist()
        [1.0, 0.0, 1.0]
    """
    check(spikes, convolution, taps)
    if wants_reference():
        return reference.delayed_convolution(spikes, convolution, taps, bias)
    kernels, post = convolution.kernels(), convolution.post
    common = torch.promote_types(spikes.dtype, kernels.dtype)
    spikes, kernels = spikes.to(common), kernels.to(common)
    learns = torch.is_grad_enabled() and any(x.requires_grad for x in (spikes, kernels, taps.value))
    each, outputs = at_a_time(spikes.numel() // convolution.groups), []
    for first in range(0, post, each):
        last = min(post, first + each)
        given = (spikes, kernels[first:last], taps.value[:, first:last], taps.index[:, first:last])
        rest = (convolution, first, last, taps.order)
        if learns:
            outputs.append(checkpoint(outputs_of, *given, *rest, use_reentrant=False, preserve_rng_state=False))
        else:
            outputs.append(outputs_of(*given, *rest))
    current = torch.cat(outputs, 2) if len(outputs) > 1 else outputs[0]
    return current if bias is None else current + bias.to(common).reshape(-1, *[1] * (current.dim() - 3))


def outputs_of(
    spikes: Tensor, kernels: Tensor, value: Tensor, index: Tensor, convolution: Convolution, first: int, last: int,
    order: int,
) -> Tensor:  # fmt: skip
    """Compute the output channels ``first .. last - 1``: ``(time, batch, outputs, *space)``."""
    copies = spikes.index_select(2, convolution.sources_of(first, last))
    late = filter_channels(copies, index.flatten(1), value.flatten(1), order, True)
    return convolution.into(late.flatten(0, 1), kernels).unflatten(0, spikes.shape[:2])


def at_a_time(copies: int) -> int:
    """Return of how many channels the delayed copies, of so many numbers each, may be alive together."""
    return max(1, ALIVE // max(1, copies))


def check(spikes: Tensor, convolution: Convolution, taps: Taps) -> None:
    """Raise :class:`ShapeError` for taps that are not one set a pair, or spikes of other channels."""
    where, space = "delayed_convolution", convolution.weight.dim() - 2
    check_operands(where, spikes=spikes, weight=convolution.weight, taps=taps.value)
    if spikes.dim() != 3 + space or spikes.shape[2] != convolution.pre:
        expected = f"(time, batch, {convolution.pre}" + ", space" * space + ")"
        raise ShapeError(where, f"spikes {tuple(spikes.shape)}", expected, "give them its channels")
    if taps.shape != (convolution.post, convolution.fan_in):
        expected = f"({convolution.post}, {convolution.fan_in}): an output channel and its group's inputs"
        raise ShapeError(where, f"taps for {taps.shape}", expected, "make the taps from delays of such a shape")
