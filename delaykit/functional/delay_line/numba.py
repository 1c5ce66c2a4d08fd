"""The sums of a delay line for the CPU, by Numba: backend ``cpu``."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from delaykit.functional.compiled import DOT_PRODUCTS, arrays, compiled, in_threads

try:
    from delaykit.functional.llvm import adjacent_taps as vectors
except ImportError as error:  # the folder may be deleted
    if error.name != "delaykit.functional.llvm":
        raise
    vectors = None  # type: ignore[assignment]

WIDEST = 8  # steps that a channel's taps may span to be read row by row
BLOCK = 16  # channels at a time: a cache line of float32, read once
TILE = 8  # steps at a time, while time and channels change places


def tap_filter(x: Tensor, index: Tensor, value: Tensor, causal: bool) -> Tensor:
    """Filter channels; see :func:`delaykit.functional.delay_line.torch.tap_filter`."""
    x = x.contiguous()
    sign, work, narrow = -1 if causal else 1, x.numel() * len(index), _narrow(x, index, value)
    if narrow is not None:
        out = torch.empty_like(x)
        given = arrays(x.squeeze(3), *narrow)
        rows = out.squeeze(3).numpy()
        in_threads(lambda first, last: vectors.filter_narrow(*given, sign, rows, first, last), x.shape[1], work)
        return out
    dense = x.shape[3] == 1
    out = torch.empty_like(x) if dense else torch.zeros_like(x)
    given = arrays(x, index, value)
    kernel = _filter_channels if dense else _filter_maps
    in_threads(lambda first, last: kernel(*given, sign, out.numpy(), first, last), x.shape[1], work)
    return out


def tap_correlation(x: Tensor, y: Tensor, index: Tensor) -> Tensor:
    """Correlate channels; see :func:`delaykit.functional.delay_line.torch.tap_correlation`."""
    narrow = _narrow(x, index, torch.zeros_like(index, dtype=x.dtype))
    if narrow is not None:
        return _narrow_gradients(x, y, index, *narrow, wants=False)[1]
    batch = x.shape[1]
    shares = np.zeros((batch, *index.shape), dtype=np.float64)
    given = arrays(x, y, index)
    kernel = _correlate_channels if x.shape[3] == 1 else _correlate_maps
    in_threads(lambda first, last: kernel(*given, shares, first, last), batch, x.numel() * len(index))
    return torch.from_numpy(shares.sum(0)).to(x.dtype)


def tap_gradients(x: Tensor, y: Tensor, index: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Go back through a filter; see :func:`delaykit.functional.delay_line.torch.tap_gradients`."""
    narrow = _narrow(x, index, value)
    if narrow is None:
        return tap_filter(y, index, value, False), tap_correlation(x, y, index)
    return _narrow_gradients(x, y, index, *narrow, wants=True)


def _narrow(x: Tensor, index: Tensor, value: Tensor) -> tuple[Tensor, Tensor] | None:
    """Return each channel's first tap and its factors from there, ``(reach, channel)``; None where they lie far apart.

    Factors of a place outside the sequence count for nothing, so that the first tap may be brought to its end.
    """
    if vectors is None or x.shape[3] != 1 or not index.numel() or not x.numel():
        return None
    late = index.amin(0)
    behind = index - late
    reach = int(behind.max()) + 1
    if reach > WIDEST:
        return None
    factor = value.new_zeros(reach, index.shape[1]).scatter_add_(0, behind, value)
    return late.clamp(max=len(x)), factor


def _narrow_gradients(
    x: Tensor, y: Tensor, index: Tensor, late: Tensor, factor: Tensor, wants: bool
) -> tuple[Tensor, Tensor]:
    batch, out = x.shape[1], torch.empty_like(x if wants else x[:0], memory_format=torch.contiguous_format)
    shares = np.zeros((batch, *factor.shape), dtype=np.float64)
    given = arrays(x.squeeze(3), y.squeeze(3), late, factor)
    rows, work = out.squeeze(3).numpy(), x.numel() * len(index)
    in_threads(lambda first, last: vectors.gradients_narrow(*given, wants, rows, shares, first, last), batch, work)
    found = torch.from_numpy(shares.sum(0)).gather(0, index - index.amin(0))
    return out, found.to(x.dtype)


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
