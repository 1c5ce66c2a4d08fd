"""The judge of every synapse: the causal convolution with its impulse response, by a plain loop and plain autograd.

Each operator's own judge stands in its room, ``delaykit.functional.<operator>.reference``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from delaykit.errors import ShapeError


def causal_convolution(spikes: Tensor, response: Tensor) -> Tensor:
    """Filter spikes by every synapse's impulse response.

    ``current[t, b, j] = sum_i sum_{tau <= t} response[j, i, tau] spikes[t - tau, b, i]``

    Args:
        spikes: ``(time, batch, pre)``.
        response: ``(post, pre, depth)``.

    Returns:
        Current ``(time, batch, post)``.

    Raises:
        ShapeError: the ranks or the numbers of presynaptic neurons differ.

    Example:
        >>> spikes = torch.tensor([1.0, 0.0, 0.0]).reshape(3, 1, 1)
        >>> causal_convolution(spikes, torch.tensor([[[0.0, 2.0]]])).flatten().tolist()
        [0.0, 2.0, 0.0]
    """
    if spikes.dim() != 3 or response.dim() != 3 or spikes.shape[2] != response.shape[1]:
        found = f"spikes {tuple(spikes.shape)} and response {tuple(response.shape)}"
        raise ShapeError("causal_convolution", found, "(time, batch, pre) and (post, pre, depth)", "use the same pre")
    time, batch, _ = spikes.shape
    post, _, depth = response.shape
    current = spikes.new_zeros(time, batch, post, dtype=torch.result_type(spikes, response))
    for tau in range(min(depth, time)):
        arriving = spikes[: time - tau] @ response[:, :, tau].T.to(spikes.dtype)
        current = current + torch.cat([current.new_zeros(tau, batch, post), arriving])
    return current
