"""The sums of a delay line for the CPU, by Numba: backend ``cpu``."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from delaykit.functional.compiled import DOT_PRODUCTS, arrays, compiled, in_threads


def tap_filter(x: Tensor, index: Tensor, value: Tensor, causal: bool) -> Tensor:
    """Filter channels; see :func:`delaykit.functional.delay_line.torch.tap_filter`."""
    x = x.contiguous()
    out = torch.zeros_like(x)
    given = arrays(x, index, value)
    kernel = _filter_channels if x.shape[3] == 1 else _filter_maps
    sign = -1 if causal else 1
    in_threads(lambda first, last: kernel(*given, sign, out.numpy(), first, last), x.shape[1], x.numel() * len(index))
    return out


def tap_correlation(x: Tensor, y: Tensor, index: Tensor) -> Tensor:
    """Correlate channels; see :func:`delaykit.functional.delay_line.torch.tap_correlation`."""
    batch = x.shape[1]
    shares = np.zeros((batch, *index.shape), dtype=np.float64)
    given = arrays(x, y, index)
    in_threads(lambda first, last: _correlate_channels(*given, shares, first, last), batch, x.numel() * len(index))
    return torch.from_numpy(shares.sum(0)).to(x.dtype)


@compiled()
def _filter_channels(x, index, value, sign, out, first, last):  # type: ignore[no-untyped-def]
    """Add ``value[m, c] x[t + sign index[m, c], b, c]`` to ``out[t, b, c]``, where space has one place."""
    time, _, channels, _ = x.shape
    for t in range(time):
        for b in range(first, last):
            source, target = x[:, b, :, 0], out[t, b, :, 0]
            for m in range(index.shape[0]):
                for c in range(channels):
                    read = t + sign * index[m, c]
                    if value[m, c] != 0 and 0 <= read < time:
                        target[c] += value[m, c] * source[read, c]


@compiled()
def _filter_maps(x, index, value, sign, out, first, last):  # type: ignore[no-untyped-def]
    """Do the same where each channel is a map of many places."""
    time, _, channels, _ = x.shape
    for t in range(time):
        for b in range(first, last):
            for m in range(index.shape[0]):
                for c in range(channels):
                    read = t + sign * index[m, c]
                    if value[m, c] != 0 and 0 <= read < time:
                        weight, source, target = value[m, c], x[read, b, c], out[t, b, c]
                        for s in range(target.shape[0]):
                            target[s] += weight * source[s]


@compiled(DOT_PRODUCTS)
def _correlate_channels(x, y, index, shares, first, last):  # type: ignore[no-untyped-def]
    """Sum ``x[t - index[m, c], b, c, s] y[t, b, c, s]`` over time and space, a share for each row of the batch."""
    for b in range(first, last):
        for t in range(x.shape[0]):
            for m in range(index.shape[0]):
                for c in range(index.shape[1]):
                    read = t - index[m, c]
                    if read >= 0:
                        total = 0.0
                        source, target = x[read, b, c], y[t, b, c]
                        for s in range(target.shape[0]):
                            total += source[s] * target[s]
                        shares[b, m, c] += total
