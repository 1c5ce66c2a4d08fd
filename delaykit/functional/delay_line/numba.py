"""The sums of a delay line for the CPU, by Numba: backend ``cpu``."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from delaykit.functional.compiled import DOT_PRODUCTS, arrays, compiled, in_threads

BLOCK = 16  # channels at a time: a cache line of float32, read once
TILE = 8  # steps at a time, while time and channels change places


def tap_filter(x: Tensor, index: Tensor, value: Tensor, causal: bool) -> Tensor:
    """Filter channels; see :func:`delaykit.functional.delay_line.torch.tap_filter`."""
    x = x.contiguous()
    dense = x.shape[3] == 1
    out = torch.empty_like(x) if dense else torch.zeros_like(x)
    given = arrays(x, index, value)
    kernel = _filter_channels if dense else _filter_maps
    sign = -1 if causal else 1
    in_threads(lambda first, last: kernel(*given, sign, out.numpy(), first, last), x.shape[1], x.numel() * len(index))
    return out


def tap_correlation(x: Tensor, y: Tensor, index: Tensor) -> Tensor:
    """Correlate channels; see :func:`delaykit.functional.delay_line.torch.tap_correlation`."""
    batch = x.shape[1]
    shares = np.zeros((batch, *index.shape), dtype=np.float64)
    given = arrays(x, y, index)
    kernel = _correlate_channels if x.shape[3] == 1 else _correlate_maps
    in_threads(lambda first, last: kernel(*given, shares, first, last), batch, x.numel() * len(index))
    return torch.from_numpy(shares.sum(0)).to(x.dtype)


@compiled()
def _filter_channels(x, index, value, sign, out, first, last):  # type: ignore[no-untyped-def]
    """Write ``sum_m value[m, c] x[t + sign index[m, c], b, c]`` to ``out[t, b, c]``, where space has one place.

    Each channel's whole past lies in one row while its taps are read, so that a tap is a shifted sum of two rows.
    """
    time, _, channels, _ = x.shape
    rows, sums = np.empty((BLOCK, time), x.dtype), np.empty((BLOCK, time), x.dtype)
    for b in range(first, last):
        for start in range(0, channels, BLOCK):
            size = min(BLOCK, channels - start)
            for part in range(0, time, TILE):
                for c in range(size):
                    for t in range(part, min(part + TILE, time)):
                        rows[c, t] = x[t, b, start + c, 0]
            for c in range(size):
                sums[c, :] = 0
                for m in range(index.shape[0]):
                    late, factor = -sign * index[m, start + c], value[m, start + c]
                    if factor != 0 and -time < late < time:
                        target, past = sums[c, max(late, 0) :], rows[c, max(-late, 0) :]
                        for t in range(time - abs(late)):
                            target[t] += factor * past[t]
            for t in range(time):
                target = out[t, b, start : start + size, 0]
                for c in range(size):
                    target[c] = sums[c, t]


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
    """Sum ``x[t - index[m, c], b, c] y[t, b, c]`` over time, a share for each row of the batch."""
    time, _, channels, _ = x.shape
    early, late = np.empty((BLOCK, time), x.dtype), np.empty((BLOCK, time), y.dtype)
    for b in range(first, last):
        for start in range(0, channels, BLOCK):
            size = min(BLOCK, channels - start)
            for part in range(0, time, TILE):
                for c in range(size):
                    for t in range(part, min(part + TILE, time)):
                        early[c, t] = x[t, b, start + c, 0]
                        late[c, t] = y[t, b, start + c, 0]
            for c in range(size):
                for m in range(index.shape[0]):
                    shift = index[m, start + c]
                    if shift < time:
                        total, past, now = 0.0, early[c, : time - shift], late[c, shift:]
                        for t in range(time - shift):
                            total += past[t] * now[t]
                        shares[b, m, start + c] += total


@compiled(DOT_PRODUCTS)
def _correlate_maps(x, y, index, shares, first, last):  # type: ignore[no-untyped-def]
    """Sum ``x[t - index[m, c], b, c, s] y[t, b, c, s]`` over time and space where each channel is a map."""
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
