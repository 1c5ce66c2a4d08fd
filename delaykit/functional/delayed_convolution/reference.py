"""The judge of delayed convolutions: a convolution a pair of channels and step, shifted in time, and plain autograd."""

from __future__ import annotations

import torch
from torch import Tensor

from delaykit.functional.delayed_convolution.spatial import Convolution
from delaykit.functional.taps import Taps


def delayed_convolution(spikes: Tensor, convolution: Convolution, taps: Taps, bias: Tensor | None = None) -> Tensor:
    """Delay every pair; see :func:`delaykit.functional.delayed_convolution.delayed_convolution`."""
    time, response, kernels = len(spikes), taps.response(len(spikes)), convolution.kernels()
    outputs = []
    for o in range(convolution.post):
        total: Tensor | float = 0.0
        for i, channel in enumerate(convolution.sources_of(o, o + 1).tolist()):
            channel_spikes = spikes[:, :, channel : channel + 1]
            one = torch.stack([convolution.into(x, kernels[o, i][None, None]) for x in channel_spikes])
            for tau in range(time):
                late = torch.cat([torch.zeros_like(one[:tau]), one[: time - tau]])
                total = total + response[o, i, tau] * late
        assert isinstance(total, Tensor)
        outputs.append(total)
    current = torch.cat(outputs, 2).to(torch.result_type(spikes, convolution.weight))
    return current if bias is None else current + bias.reshape(-1, *[1] * (current.dim() - 3))
