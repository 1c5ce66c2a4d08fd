"""The judge: causal filters as their definitions say, by plain loops and plain autograd. Slow, obvious, never fast."""

from __future__ import annotations

import torch
from torch import Tensor

from delaykit.errors import ShapeError
from delaykit.functional.taps import Taps


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


def delay_line(x: Tensor, taps: Taps) -> Tensor:
    """Filter each channel by its own response; see :func:`delaykit.functional.delay_line.delay_line`."""
    response = taps.response(x.shape[0]).flatten(0, 1)  # (channel or 1, time)
    out = torch.zeros_like(x, dtype=torch.result_type(x, response))
    for tau in range(x.shape[0]):
        weight = response[:, tau].reshape(-1, *[1] * (x.dim() - 3))
        out = out + torch.cat([torch.zeros_like(x[:tau]), x[: x.shape[0] - tau] * weight])
    return out.to(x.dtype)


def delayed_linear(spikes: Tensor, weight: Tensor, taps: Taps, bias: Tensor | None = None) -> Tensor:
    """Delay every synapse; see :func:`delaykit.functional.delayed_linear.delayed_linear`."""
    response = weight.unsqueeze(-1) * taps.response(spikes.shape[0])
    current = causal_convolution(spikes.to(response.dtype), response).to(torch.result_type(spikes, weight))
    return current if bias is None else current + bias


def filtered_linear(
    spikes: Tensor, weight: Tensor, decay: Tensor, bias: Tensor | None = None, leak: Tensor | None = None
) -> Tensor:
    """Let every synapse decay, step by step; see :func:`delaykit.functional.filtered_linear.filtered_linear`."""
    time, batch, pre = spikes.shape
    state = spikes.new_zeros(batch, weight.shape[0], pre, dtype=torch.result_type(spikes, weight))
    currents = []
    for step in range(time):
        before, state = state, decay * state + weight * spikes[step].unsqueeze(1)
        currents.append((state if leak is None else state - leak * before).sum(-1))
    current = torch.stack(currents) if currents else state.new_zeros(0, batch, weight.shape[0])
    return current if bias is None else current + bias
