"""Inner loops of a tape's time step, over rows ``(time, channel, chunk)``; backends ``torch`` and ``cpu`` (Numba).

Offsets count rows of the flattened ``(time * channel, chunk)`` from the first channel of the current step, so that one
kernel reads the past for an output and the future for a gradient.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from delaykit.functional.backend import register
from delaykit.functional.compiled import compiled


@register("tape_store", "torch")
def store(rows: Tensor, row: int, x: Tensor) -> None:
    """Copy ``x (batch, channel, *space)`` into row ``(channel, chunk)``."""
    turned = x.transpose(0, 1)
    rows[row].view(turned.shape).copy_(turned)


@register("tape_lines", "torch")
def lines(rows: Tensor, row: int, offset: Tensor, value: Tensor, out: Tensor) -> None:
    """Read ``out[c] = sum_m value[m, c] flat[row * channels + offset[m, c]]``.

    Args:
        rows: ``(time, channel, chunk)``.
        row: the current step.
        offset: int64 ``(m, channel)``.
        value: ``(m, channel)``.
        out: ``(channel, batch, space)``, any strides.
    """
    channels, chunk = rows.shape[1:]
    found = rows.view(-1, chunk).index_select(0, offset.flatten() + row * channels).view(*offset.shape, chunk)
    out.copy_((found * value.unsqueeze(-1)).sum(0).view(out.shape))


@register("tape_synapses", "torch")
def synapses(rows: Tensor, row: int, offset: Tensor, value: Tensor, out: Tensor) -> None:
    """Read ``out[a] = sum_{b, m} value[b, a, m] flat[row * channels + offset[b, a, m]]``, one output at a time."""
    channels, chunk = rows.shape[1:]
    flat, target = rows.view(-1, chunk), torch.empty(value.shape[1], chunk, dtype=value.dtype, device=rows.device)
    for a in range(value.shape[1]):
        found = flat.index_select(0, offset[:, a].flatten() + row * channels).to(value.dtype)
        torch.mv(found.t(), value[:, a].flatten(), out=target[a])
    out.copy_(target.view(out.shape))


@register("tape_store", "cpu")
def store_cpu(rows: Tensor, row: int, x: Tensor) -> None:
    """Do what :func:`store` does."""
    x = x.detach()
    if x.dtype is not rows.dtype:
        x = x.to(rows.dtype)
    if x.dim() == 2:
        _store_channels(rows.numpy(), row, x.contiguous().numpy())
    else:
        store(rows, row, x)  # maps are contiguous already


@register("tape_lines", "cpu")
def lines_cpu(rows: Tensor, row: int, offset: Tensor, value: Tensor, out: Tensor) -> None:
    """Do what :func:`lines` does."""
    _lines(rows.numpy(), row, offset.numpy(), value.numpy(), out.numpy())


@register("tape_synapses", "cpu")
def synapses_cpu(rows: Tensor, row: int, offset: Tensor, value: Tensor, out: Tensor) -> None:
    """Do what :func:`synapses` does."""
    target = torch.zeros(value.shape[1], rows.shape[2], dtype=value.dtype)
    _synapses(rows.numpy(), row, offset.numpy(), value.numpy(), target.numpy())
    out.copy_(target.view(out.shape))


@compiled()
def _store_channels(rows, row, x):  # type: ignore[no-untyped-def]
    batch, channels = x.shape
    for c in range(channels):
        target = rows[row, c]
        for b in range(batch):
            target[b] = x[b, c]


@compiled()
def _lines(rows, row, offset, value, out):  # type: ignore[no-untyped-def]
    """Sum in a chunk of its own: the output may be strided, and vector units want neighbours."""
    count, channels = offset.shape
    chunk, (_, batch, space) = rows.shape[2], out.shape
    flat = rows.reshape(-1, chunk)
    total = np.empty(chunk, out.dtype)
    for c in range(channels):
        for m in range(count):
            source, weight = flat[row * channels + offset[m, c]], value[m, c]
            if m == 0:
                for n in range(chunk):
                    total[n] = weight * source[n]
            else:
                for n in range(chunk):
                    total[n] += weight * source[n]
        for b in range(batch):
            for s in range(space):
                out[c, b, s] = total[b * space + s]


@compiled()
def _synapses(rows, row, offset, value, out):  # type: ignore[no-untyped-def]
    """Go through the inputs in the outer loop: the few rows that one input's delays can reach stay in the cache."""
    inputs, outputs, count = offset.shape
    chunk = rows.shape[2]
    flat, base = rows.reshape(-1, chunk), row * rows.shape[1]
    for b in range(inputs):
        for a in range(outputs):
            target = out[a]
            for m in range(count):
                weight = value[b, a, m]
                if weight != 0:
                    source = flat[base + offset[b, a, m]]
                    for n in range(chunk):
                        target[n] += weight * source[n]
