"""The sums of a delay line in plain torch, for every device: backend ``torch``.

Both are linear and know nothing of gradients; the operator calls the filter forwards, and with ``causal=False`` (the
anti-causal twin, ``y[t] = sum_m v_m x[t + k_m]``) backwards.
"""

from __future__ import annotations

import torch
from torch import Tensor


def tap_filter(x: Tensor, index: Tensor, value: Tensor, causal: bool) -> Tensor:
    """Filter channels: ``y[t, b, c, s] = sum_m value[m, c] x[t - index[m, c], b, c, s]``.

    Args:
        x: ``(time, batch, channel, space)``.
        index: int64 ``(m, channel)``, steps >= 0.
        value: ``(m, channel)`` in the dtype of ``x``.
        causal: False reads ``x[t + index]`` instead.
    """
    out = torch.zeros_like(x)
    for m in range(index.shape[0]):
        rows, weight = _source_rows(x.shape[0], index[m], value[m], causal)
        out.addcmul_(x.gather(0, rows.expand(-1, x.shape[1], -1, x.shape[3])), weight)
    return out


def tap_correlation(x: Tensor, y: Tensor, index: Tensor) -> Tensor:
    """Correlate channels: ``c[m, c] = sum_{t, b, s} x[t - index[m, c], b, c, s] y[t, b, c, s]``."""
    out = []
    for m in range(index.shape[0]):
        rows, inside = _source_rows(x.shape[0], index[m], torch.ones_like(index[m], dtype=x.dtype), True)
        shifted = x.gather(0, rows.expand(-1, x.shape[1], -1, x.shape[3]))
        out.append((shifted.mul_(inside) * y).sum((0, 1, 3)))
    return torch.stack(out)


def tap_gradients(x: Tensor, y: Tensor, index: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Go back through a filter: the gradients of its input, and of its tap values.

    Args:
        x: what was filtered, ``(time, batch, channel, space)``.
        y: gradient of what came out, of the same shape.
        index: int64 ``(m, channel)``, steps >= 0.
        value: ``(m, channel)`` in the dtype of ``x``.
    """
    return tap_filter(y, index, value, False), tap_correlation(x, y, index)


def _source_rows(time: int, index: Tensor, value: Tensor, causal: bool) -> tuple[Tensor, Tensor]:
    """Find the time each output step reads, and its weight (0 outside the sequence): ``(time, 1, channel, 1)``."""
    steps = torch.arange(time, device=index.device).unsqueeze(1)
    rows = steps - index if causal else steps + index
    inside = (rows >= 0) & (rows < time)
    weight = torch.where(inside, value, torch.zeros_like(value))
    return rows.clamp(0, max(time - 1, 0))[:, None, :, None], weight[:, None, :, None]
