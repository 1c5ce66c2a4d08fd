"""The judge of delay lines: loops as the definitions say, and plain autograd."""

from __future__ import annotations

import torch
from torch import Tensor

from delaykit.functional.taps import Taps


def delay_line(x: Tensor, taps: Taps) -> Tensor:
    """Filter each channel by its own response; see :func:`delaykit.functional.delay_line.delay_line`."""
    response = taps.response(x.shape[0]).flatten(0, 1)  # (channel or 1, time)
    out = torch.zeros_like(x, dtype=torch.result_type(x, response))
    for tau in range(x.shape[0]):
        weight = response[:, tau].reshape(-1, *[1] * (x.dim() - 3))
        out = out + torch.cat([torch.zeros_like(x[:tau]), x[: x.shape[0] - tau] * weight])
    return out.to(x.dtype)


def tap_filter(x: Tensor, index: Tensor, value: Tensor, causal: bool) -> Tensor:
    """Filter channels; see :func:`delaykit.functional.delay_line.torch.tap_filter`."""
    out = torch.zeros_like(x)
    taps, channels = index.shape
    for t in range(len(x)):
        for m in range(taps):
            for c in range(channels):
                read = t - int(index[m, c]) if causal else t + int(index[m, c])
                if 0 <= read < len(x):
                    out[t, :, c] += value[m, c] * x[read, :, c]
    return out


def tap_correlation(x: Tensor, y: Tensor, index: Tensor) -> Tensor:
    """Correlate channels; see :func:`delaykit.functional.delay_line.torch.tap_correlation`."""
    out = torch.zeros_like(index, dtype=x.dtype)
    taps, channels = index.shape
    for m in range(taps):
        for c in range(channels):
            for t in range(int(index[m, c]), len(x)):
                out[m, c] += (x[t - int(index[m, c]), :, c] * y[t, :, c]).sum()
    return out


def tap_gradients(x: Tensor, y: Tensor, index: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Go back through a filter; see :func:`delaykit.functional.delay_line.torch.tap_gradients`."""
    return tap_filter(y, index, value, False), tap_correlation(x, y, index)
