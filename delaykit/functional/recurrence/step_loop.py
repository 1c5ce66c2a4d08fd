"""Any neuron behind a delayed recurrent connection: its own steps, one after the other, by plain autograd."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from delaykit.functional.recurrence.dense_responses import dense_response, driven
from delaykit.functional.recurrence.state import check
from delaykit.functional.taps import Taps
from delaykit.functional.tents import OwnTents, Tents


def rollout_generic(
    step: Callable[[Tensor, Tensor], Tensor],
    currents: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    taps: Taps | Tents | OwnTents | None,
    recurrent_mask: Tensor | None = None,
) -> Tensor:
    """Run any neuron with a delayed recurrent connection over a sequence, step by step and by plain autograd.

    ``s_t = step(currents_t + mask (bias + sum_j sum_tau W_ij h_ij(tau) s_{t-1-tau,j}), s_{t-1})``

    Args:
        step: ``(drive (batch, post), spikes of the step before (batch, post)) -> spikes (batch, post)``; it keeps its
            other states itself.
        currents: external drive ``(time, batch, post)``.
        weight: as for :func:`~delaykit.functional.recurrence.operator.rollout`, as the other arguments.
        bias: ``(post,)`` or None.
        taps: delays or None.
        recurrent_mask: ``(batch, post)`` or None.

    Returns:
        Spikes ``(time, batch, post)``.

    Raises:
        ShapeError: a tensor does not fit the currents.

    Example:
        >>> spikes = rollout_generic(lambda drive, last: (drive > 0.5).float(), torch.ones(3, 1, 2), None, None, None)
        >>> spikes.shape
        torch.Size([3, 1, 2])
    """
    check(currents, weight, bias, taps, None, recurrent_mask)
    response = None if weight is None else dense_response(weight, taps, currents)
    spikes = [torch.zeros_like(currents[0])]
    for drive in currents:
        spikes.append(step(driven(drive, spikes, response, bias, recurrent_mask), spikes[-1]))
    return torch.stack(spikes[1:])
