"""What a tape remembers: one row a time step, growing while a graph needs them, bounded while none does.

Laid out ``(channel, time, chunk)`` with ``chunk = batch * space``: a delay belongs to a channel, so what a tap reads is
one contiguous chunk, neighbouring taps are neighbours in memory, and a whole channel is one series. Where a channel has
a few taps only, and none is shared by many synapses, the steps come first in memory: what is written at a step, and
most of what is read, then lies together. ``pad`` rows of zeros come first: a tap that reaches back before the first
spike reads zeros there and needs no mask.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor

_SPARE = 16


def empty_rows(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Allocate rows that may be written in any mode: a buffer born in inference mode could not be, outside it."""
    with torch.inference_mode(False):
        return torch.empty(shape, dtype=dtype, device=device)


def spread(count: int) -> int:
    """Make the rows of a channel odd in number: a power of two would put all channels into the same cache lines."""
    return count | 1


def new_rows(channel: int, count: int, chunk: int, dtype: torch.dtype, device: torch.device, by_time: bool) -> Tensor:
    """Allocate ``(channel, at least count, chunk)``; ``by_time``: the steps come first in memory.

    Both have as many rows: recordings that are written together then forget together, and their rows stay the same.
    """
    count = spread(count)
    if by_time:
        return empty_rows((count, channel, chunk), dtype, device).transpose(0, 1)
    return empty_rows((channel, count, chunk), dtype, device)


class Recording:
    """Remember a stream, one row ``(channel, chunk)`` a step.

    Args:
        channel: rows' first size.
        chunk: rows' second size, batch times space.
        pad: number of zero rows in front, at least the longest reach of a tap minus one.
        dtype: of the rows.
        device: of the rows.

    Attributes:
        rows: buffer ``(channel, capacity, chunk)``; only the first ``size`` rows mean anything.
        size: rows in use, the pad included.
        forgot: whether rows were dropped.
    """

    by_time: ClassVar[bool] = False

    def __init__(self, channel: int, chunk: int, pad: int, dtype: torch.dtype, device: torch.device) -> None:
        self.pad = self.size = pad
        self.forgot = False
        self.rows = new_rows(channel, pad + _SPARE, chunk, dtype, device, self.by_time)
        self.rows[:, :pad].zero_()

    def reserve(self, keep: int | None = None) -> int:
        """Make room for one more row and return its number.

        Args:
            keep: how many of the newest rows must survive; None keeps all.
        """
        if self.size == self.rows.shape[1]:
            if keep is not None and self.size - self.pad > 2 * keep:
                self._forget(keep)
            else:
                self._grow(2 * self.size)
        self.size += 1
        return self.size - 1

    def write(self, row: int, x: Tensor, store: Callable[[Tensor, int, Tensor], None]) -> None:
        """Copy an input ``(batch, channel, *space)`` into a row, as ``store`` lays it out."""
        store(self.rows, row, x)

    def extend(self, past: Tensor) -> None:
        """Append rows ``(channel, count, chunk)`` that an earlier segment left."""
        end = self.size + past.shape[1]
        if end > self.rows.shape[1]:
            self._grow(end + _SPARE)
        self.rows[:, self.size : end].copy_(past)
        self.size = end

    def newest(self, keep: int) -> Tensor:
        """Copy the ``keep`` newest rows, or all if there are fewer."""
        return self.rows[:, max(self.pad, self.size - keep) : self.size].clone()

    def _grow(self, capacity: int) -> None:
        channel, _, chunk = self.rows.shape
        grown = new_rows(channel, capacity, chunk, self.rows.dtype, self.rows.device, self.by_time)
        grown[:, : self.size].copy_(self.rows[:, : self.size])
        self.rows = grown

    def _forget(self, keep: int) -> None:
        # Source and target do not overlap: more than 2 * keep rows are in use.
        self.rows[:, self.pad : self.pad + keep].copy_(self.rows[:, self.size - keep : self.size])
        self.size = self.pad + keep
        self.forgot = True


class StepRecording(Recording):
    """Keep what belongs to a step together, for channels that have a few taps each."""

    by_time = True


class ByteRecording(Recording):
    """Keep a byte for a number as long as all that comes are whole numbers from 0 to 255, as spikes are.

    For streams that are read row by row, by a reader that converts: the kernels of taps read the rows directly.
    """

    def __init__(self, channel: int, chunk: int, pad: int, dtype: torch.dtype, device: torch.device) -> None:
        super().__init__(channel, chunk, pad, torch.uint8, device)
        self.wide = dtype
        self._small: Tensor | None = None  # made once, and so is its like: new ones would leave holes in memory
        self._back: Tensor | None = None

    def write(self, row: int, x: Tensor, store: Callable[[Tensor, int, Tensor], None]) -> None:
        """Copy an input into a row; the first that bytes cannot hold makes all rows wide."""
        if self.rows.dtype is torch.uint8:
            x = x.detach()
            if self._small is None or self._back is None:
                self._small, self._back = (empty_rows(tuple(x.shape), d, x.device) for d in (torch.uint8, x.dtype))
            if torch.equal(self._back.copy_(self._small.copy_(x)), x):
                x = self._small
            else:
                self._widen()
        store(self.rows, row, x)

    def extend(self, past: Tensor) -> None:
        """Append rows ``(channel, count, chunk)`` that an earlier segment left."""
        if past.dtype is not torch.uint8:
            self._widen()
        super().extend(past)

    def _widen(self) -> None:
        wide = empty_rows(tuple(self.rows.shape), self.wide, self.rows.device)
        wide[:, : self.size].copy_(self.rows[:, : self.size])
        self.rows = wide
