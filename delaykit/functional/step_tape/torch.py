"""The inner loops of a tape in plain torch, over recordings ``(channel, time, chunk)``: backend ``torch``.

Offsets are steps, negative into the past: one function reads the past for an output and the future for a gradient.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def tape_store(rows: Tensor, row: int, x: Tensor) -> None:
    """Copy ``x (batch, channel, *space)`` into ``rows[:, row]``."""
    turned = x.transpose(0, 1)
    rows[:, row].view(turned.shape).copy_(turned)


def tape_lines(
    rows: Tensor, row: int, offset: Tensor, value: Tensor, out: Tensor, kept: dict[str, Any] | None = None
) -> None:
    """Read ``out[c] = sum_m value[m, c] rows[c, row + offset[m, c]]``.

    Args:
        rows: ``(channel, time, chunk)``.
        row: the current step.
        offset: int64 ``(m, channel)``.
        value: ``(m, channel)``.
        out: ``(channel, batch, space)``, any strides.
        kept: belongs to these offsets and values; a backend may keep there what it makes of them.
    """
    channel = torch.arange(rows.shape[0], device=rows.device)
    out.copy_((rows[channel, offset + row] * value.unsqueeze(-1)).sum(0).view(out.shape))


def tape_series(rows: Tensor, start: int, offset: Tensor, value: Tensor, out: Tensor) -> None:
    """Do what :func:`tape_lines` does for all steps from ``start`` on; ``out (channel, time, chunk)``."""
    out.zero_()
    channel = torch.arange(rows.shape[0], device=rows.device).unsqueeze(1)
    step = torch.arange(start, start + out.shape[1], device=rows.device)
    for m in range(offset.shape[0]):
        out.addcmul_(rows[channel, step + offset[m].unsqueeze(1)], value[m].view(-1, 1, 1))


def tape_synapses(
    rows: Tensor, row: int, offset: Tensor, value: Tensor, out: Tensor, kept: dict[str, Any] | None = None
) -> None:
    """Read ``out[a] = sum_{b, m} value[b, a, m] rows[b, row + offset[b, a, m]]``, one output at a time.

    Args:
        rows: as for :func:`tape_lines`, as the other arguments.
        row: the current step.
        offset: int64 ``(from, to, m)``.
        value: ``(from, to, m)``.
        out: ``(to, batch, space)``, any strides.
        kept: belongs to these offsets and values; a backend may keep there what it makes of them.
    """
    target = torch.empty(value.shape[1], rows.shape[2], dtype=value.dtype, device=rows.device)
    channel = torch.arange(rows.shape[0], device=rows.device).unsqueeze(1)
    for a in range(value.shape[1]):
        found = rows[channel, row + offset[:, a]].flatten(0, 1).to(value.dtype)
        torch.mv(found.t(), value[:, a].flatten(), out=target[a])
    out.copy_(target.view(out.shape))


def tape_polynomials(
    rows: Tensor, row: int, place: Tensor, part: Tensor, strength: Tensor, terms: int, out: Tensor,
    kept: dict[str, Any] | None = None,
) -> None:  # fmt: skip
    """Read ``out[a] = sum_{b, m} strength[b, a] part[b, a]^m rows[b, row + place[b, a] + m]``, m < terms.

    Args:
        rows: as for :func:`tape_synapses`.
        row: the current step.
        place: int64 ``(from, to)``.
        part: ``(from, to)``.
        strength: ``(from, to)``.
        terms: number of rows that a synapse reads.
        out: ``(to, batch, space)``, any strides.
        kept: belongs to these tables; a backend may keep there what it makes of them.
    """
    target = torch.empty(strength.shape[1], rows.shape[2], dtype=strength.dtype, device=rows.device)
    channel = torch.arange(rows.shape[0], device=rows.device)
    for a in range(strength.shape[1]):
        value = torch.zeros_like(target[0])
        for m in range(terms - 1, -1, -1):
            value = value * part[:, a].unsqueeze(1) + rows[channel, row + place[:, a] + m]
        torch.mv(value.t(), strength[:, a], out=target[a])
    out.copy_(target.view(out.shape))


def tape_correlation(rows: Tensor, gradients: Tensor, index: Tensor) -> Tensor:
    """Correlate ``c[m, c] = sum_t gradients[c, t] . rows[c, t - index[m, c]]``; none where that is before 0."""
    channel = torch.arange(rows.shape[0], device=rows.device).unsqueeze(1)
    step = torch.arange(rows.shape[1], device=rows.device)
    shares = []
    for k in index:
        read = step - k.unsqueeze(1)
        product = rows[channel, read.clamp(min=0)] * gradients
        shares.append(product.sum(2).mul_(read >= 0).sum(1))
    return torch.stack(shares)


def tape_tents(rows: Tensor, row: int, height: Tensor, source: Tensor, at: int, count: int) -> None:
    """Add ``height[c, k] source[c, at]`` to ``rows[c, row + k]``, k < count.

    Args:
        rows: cells ``(channel, cell, chunk)``.
        row: the first that is written to.
        height: ``(channel, k)``, or ``(1, k)`` for all channels.
        source: ``(channel, time, chunk)``.
        at: which of its steps.
        count: how many cells are written to.
    """
    cells = rows[:, row : row + count]
    cells.addcmul_(source[:, at].unsqueeze(1).to(rows.dtype), height[:, :count].unsqueeze(2))


def tape_pending(rows: Tensor, row: int, height: Tensor, begin: int, phases: int, pending: Tensor) -> None:
    """Add ``height[c, begin + k + (steps - 1 - j) phases] pending[c, j]`` to ``rows[c, row + k]``, one j after another.

    Args:
        rows: cells ``(channel, cell, chunk)``.
        row: the first that is written to.
        height: ``(channel, k)``, or ``(1, k)`` for all channels; 0 behind its end.
        begin: which of them the last step has at ``row``.
        phases: how many cells earlier the step before has it.
        pending: ``(channel, steps, chunk)``.
    """
    steps = pending.shape[1]
    for j in range(steps):
        values = height[:, begin + (steps - 1 - j) * phases :]
        cells = rows[:, row : row + values.shape[1]]
        cells.addcmul_(pending[:, j].unsqueeze(1), values.unsqueeze(2))


def tape_heights(rows: Tensor, row: int, height: Tensor, out: Tensor) -> None:
    """Read ``out[c] = sum_k height[c, k] rows[c, row + k]``, as :func:`tape_tents` writes; ``out (channel, chunk)``."""
    torch.sum(rows[:, row : row + height.shape[1]] * height.unsqueeze(2), 1, out=out)


def tape_deliver(
    rows: Tensor, row: int, place: Tensor, strength: Tensor, source: Tensor, at: int, kept: object = None
) -> None:
    """Add ``strength[b, a, m] source[a, at]`` to ``rows[b, row + place[b, a] + m]``.

    Args:
        rows: cells ``(channel, cell, chunk)``.
        row: the first cell of the current step.
        place: int32 ``(channel, sources)``.
        strength: ``(channel, sources, 2)``.
        source: ``(sources, time, chunk)``.
        at: which of its steps.
        kept: belongs to these places and strengths; a backend may keep there what it makes of them.
    """
    channel = torch.arange(rows.shape[0], device=rows.device)
    for a in range(place.shape[1]):
        for m in (0, 1):  # each adds to a cell of every channel, once
            cell = row + m + place[:, a].long()
            rows[channel, cell] += strength[:, a, m].unsqueeze(1) * source[a, at].to(rows.dtype)


def tape_overlap(rows: Tensor, row: int, offset: Tensor, x: Tensor, out: Tensor) -> None:
    """Add ``sum_n rows[b, row + offset[b, a, m], n] x[a, n]`` to ``out[b, a, m]``, one input at a time.

    Args:
        rows: cells ``(channel, cell, chunk)``.
        row: the first cell of the current step.
        offset: int32 ``(channel, inputs, m)``.
        x: ``(inputs, chunk)``.
        out: ``(channel, inputs, m)``.
    """
    channel = torch.arange(rows.shape[0], device=rows.device).unsqueeze(1)
    for a in range(offset.shape[1]):
        out[:, a] += rows[channel, row + offset[:, a]] @ x[a]
