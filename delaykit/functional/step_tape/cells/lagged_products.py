r"""Products of two streams at every lag, some rows of synapses at a time: what gradients of wide responses are made of.

``shared[tau, j, i] = sum_{t, b} y[j, t, b] x[i, t - tau, b]``

Taken in the frequency domain, where time costs one product a frequency and all lags are there at once; of the table
``(lag, post, pre)`` no more is ever held than a block of rows. Frames are short, so that transforms are products with a
matrix, too, and leave all numbers where the next product wants them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

FRAME = 128  # steps that are transformed together, or as many as there are lags
BLOCK = 1 << 19  # numbers in the spectrum of a block of rows, which the second cache holds for the most part


def lagged_products(x: Tensor, y: Tensor, lags: int) -> Iterator[tuple[slice, Tensor]]:
    """Correlate every row of ``y`` with every row of ``x`` at lags 0 .. lags - 1; nothing is read before the first.

    Args:
        x: ``(pre, lead + time, chunk)``, which may begin some steps before ``y``.
        y: ``(post, time, chunk)``, in the dtype of ``x``.
        lags: how many.

    Yields:
        Rows of ``y``, and their products ``(lags, rows, pre)``, valid until the next.

    Example:
        >>> x, y = torch.tensor([[[1.0], [0.0], [2.0]]]), torch.tensor([[[1.0], [10.0], [100.0]]])
        >>> [products.flatten().round().tolist() for _, products in lagged_products(x, y, 2)]
        [[201.0, 10.0]]
    """
    time, inputs = y.shape[1], x.shape[0]
    lead = x.shape[1] - time
    steps = min(time, max(FRAME, lags))
    size = steps + lags - 1  # what wraps around falls on lags that nobody asks for
    frequency = torch.arange(size // 2 + 1, dtype=torch.float64)
    starts = range(0, time, steps)
    late = [(max(lead + start - lags + 1, 0), lead + min(start + steps, time)) for start in starts]
    offsets = [first - lead - start + lags - 1 for (first, _), start in zip(late, starts, strict=True)]
    turned = y.permute(1, 2, 0).contiguous()
    real, imaginary = _waves(frequency, size, torch.arange(size))
    past = _spectrum(torch.stack([real, imaginary], 1), x.permute(1, 2, 0).contiguous(), late, offsets)
    now = [(start, min(start + steps, time)) for start in starts]
    parts = torch.stack([real, imaginary], 1), torch.stack([imaginary, -real], 1)
    rows = [_spectrum(wave, turned, now, [0] * len(now)).transpose(1, 2) for wave in parts]
    share = (2 - ((frequency == 0) | (2 * frequency == size)).double()) / size
    back = [(share.unsqueeze(1) * wave).t().to(x) for wave in _waves(frequency, size, torch.arange(lags) - (lags - 1))]
    block = max(1, BLOCK // (2 * len(frequency) * inputs))
    for start in range(0, len(y), block):
        products = [torch.bmm(part[:, start : start + block], past).view(len(frequency), -1) for part in rows]
        out = (back[0] @ products[0]).addmm_(back[1], products[1])
        yield slice(start, start + block), out.view(lags, -1, inputs)


def _waves(frequency: Tensor, size: int, step: Tensor) -> tuple[Tensor, Tensor]:
    """Real and imaginary part of ``exp(-2 pi i frequency step / size)``, ``(frequency, step)`` each, float64."""
    angle = 2 * math.pi / size * (torch.outer(frequency, step.double()) % size)
    return angle.cos(), -angle.sin()


def _spectrum(waves: Tensor, rows: Tensor, frames: list[tuple[int, int]], offsets: list[int]) -> Tensor:
    """Transform frames of ``rows (time, chunk, channel)``, which begin so far into them.

    Returns:
        ``(frequency, 2 frame chunk, channel)``: of each frequency the first kind of wave, then the second.
    """
    waves = waves.flatten(0, 1).to(rows)
    found = [
        waves[:, offset : offset + stop - start] @ rows[start:stop].flatten(1)
        for (start, stop), offset in zip(frames, offsets, strict=True)
    ]
    return torch.stack(found, 1).view(len(waves) // 2, -1, rows.shape[2])
