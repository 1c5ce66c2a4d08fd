"""The judge of a tape's inner loops: one channel, one tap, one step after the other."""

from __future__ import annotations

import torch
from torch import Tensor


def tape_store(rows: Tensor, row: int, x: Tensor) -> None:
    """Copy an input; see :func:`delaykit.functional.step_tape.torch.tape_store`."""
    for c in range(x.shape[1]):
        rows[c, row] = x[:, c].flatten()


def tape_lines(rows: Tensor, row: int, offset: Tensor, value: Tensor, out: Tensor, kept: object = None) -> None:
    """Read the taps; see :func:`delaykit.functional.step_tape.torch.tape_lines`."""
    for c in range(len(rows)):
        taps = [value[m, c] * rows[c, row + int(offset[m, c])] for m in range(len(offset))]
        out[c] = torch.stack(taps).sum(0).view(out[c].shape)


def tape_series(rows: Tensor, start: int, offset: Tensor, value: Tensor, out: Tensor) -> None:
    """Read the taps of all steps; see :func:`delaykit.functional.step_tape.torch.tape_series`."""
    for step in range(out.shape[1]):
        tape_lines(rows, start + step, offset, value, out[:, step])


def tape_synapses(rows: Tensor, row: int, offset: Tensor, value: Tensor, out: Tensor, kept: object = None) -> None:
    """Read every synapse's taps; see :func:`delaykit.functional.step_tape.torch.tape_synapses`."""
    inputs, outputs, count = offset.shape
    for a in range(outputs):
        taps = [value[b, a, m] * rows[b, row + int(offset[b, a, m])] for b in range(inputs) for m in range(count)]
        out[a] = torch.stack(taps).sum(0).view(out[a].shape)


def tape_polynomials(
    rows: Tensor, row: int, place: Tensor, part: Tensor, strength: Tensor, terms: int, out: Tensor, kept: object = None
) -> None:
    """Read polynomials; see :func:`delaykit.functional.step_tape.torch.tape_polynomials`."""
    for a in range(strength.shape[1]):
        total = torch.zeros_like(rows[0, 0])
        for b in range(len(rows)):
            for m in range(terms):
                total += strength[b, a] * part[b, a] ** m * rows[b, row + int(place[b, a]) + m]
        out[a] = total.view(out[a].shape)


def tape_correlation(rows: Tensor, gradients: Tensor, index: Tensor) -> Tensor:
    """Correlate; see :func:`delaykit.functional.step_tape.torch.tape_correlation`."""
    out = torch.zeros_like(index, dtype=rows.dtype)
    taps, channels = index.shape
    for m in range(taps):
        for c in range(channels):
            for t in range(int(index[m, c]), rows.shape[1]):
                out[m, c] += rows[c, t - int(index[m, c])] @ gradients[c, t]
    return out


def tape_tents(rows: Tensor, row: int, height: Tensor, source: Tensor, at: int, count: int) -> None:
    """Write triangles; see :func:`delaykit.functional.step_tape.torch.tape_tents`."""
    for c in range(len(rows)):
        own = height[0] if len(height) == 1 else height[c]
        for k in range(count):
            rows[c, row + k] += own[k] * source[c, at]


def tape_pending(rows: Tensor, row: int, height: Tensor, begin: int, phases: int, pending: Tensor) -> None:
    """Write what waited; see :func:`delaykit.functional.step_tape.torch.tape_pending`."""
    steps = pending.shape[1]
    for c in range(len(rows)):
        own = height[0] if len(height) == 1 else height[c]
        for j in range(steps):
            for k in range(len(own) - begin - (steps - 1 - j) * phases):
                rows[c, row + k] += own[begin + k + (steps - 1 - j) * phases] * pending[c, j]


def tape_heights(rows: Tensor, row: int, height: Tensor, out: Tensor) -> None:
    """Read triangles; see :func:`delaykit.functional.step_tape.torch.tape_heights`."""
    for c in range(len(rows)):
        out[c] = sum(height[c, k] * rows[c, row + k] for k in range(height.shape[1]))


def tape_deliver(
    rows: Tensor, row: int, place: Tensor, strength: Tensor, source: Tensor, at: int, kept: object = None
) -> None:
    """Deliver; see :func:`delaykit.functional.step_tape.torch.tape_deliver`."""
    channels, sources = place.shape
    for b in range(channels):
        for a in range(sources):
            for m in range(strength.shape[2]):
                rows[b, row + int(place[b, a]) + m] += strength[b, a, m] * source[a, at]


def tape_overlap(rows: Tensor, row: int, offset: Tensor, x: Tensor, out: Tensor) -> None:
    """Multiply; see :func:`delaykit.functional.step_tape.torch.tape_overlap`."""
    outputs, inputs, count = offset.shape
    for b in range(outputs):
        for a in range(inputs):
            for m in range(count):
                out[b, a, m] += rows[b, row + int(offset[b, a, m])] @ x[a]
