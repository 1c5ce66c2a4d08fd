"""The rows of a connection's lines: which of them have something under way, which leave, and which come.

A history has a line for each of its streams, or None before the first input; a row of a state (batch, patch, channel)
stands for as many rows of a line as it has patches.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from delaykit import checks
from delaykit.attaching.batch.streams import Stream
from delaykit.errors import DelayRangeError, HistoryError

LONG_LINE, LARGE_LINE = checks.LONG, checks.LARGE  # steps; bytes


def rows_under_way(streams: Sequence[Stream | None], rows: Tensor, before: int | None) -> bool:
    """Tell whether something may be under way in one of these rows, a mask (batch,), from before that call."""
    for stream in streams:
        if stream is not None:
            asked = rows.repeat_interleave(max(1, stream.batch // max(1, len(rows)))).tolist()
            if not stream.silent_in(asked, before):
                return True
    return False


def select(
    where: str,
    streams: Sequence[Stream | None],
    rows: Sequence[int | None],
    device: torch.device,
    of: int,
    since: int = 0,
) -> None:
    """Let row k go on as ``rows[k]`` of ``of`` rows has been; None begins anew, ``since`` so many calls."""
    for stream in streams:
        if stream is not None:
            stream.select(_spread(where, rows, of, stream.batch), device, since)


def _spread(where: str, rows: Sequence[int | None], of: int, lines: int) -> Sequence[int | None]:
    """Say for lines what was said of rows, each of which has as many of them."""
    if lines == of:
        return rows
    each, rest = divmod(lines, of) if of else (0, lines)
    if rest:
        found = f"a state of {of} rows behind inputs of {lines}"
        raise HistoryError(where, found, "the same rows in both", "reset all rows at once: dk.reset(net)")
    return [None if row is None else row * each + k for row in rows for k in range(each)]


def first(before: int, now: int) -> list[int | None]:
    """Say which row each of ``now`` rows has been of the ``before``: they leave at the end, or come there."""
    return [row if row < before else None for row in range(now)]


def fit_mask(where: str, streams: Sequence[Stream | None], rows: Tensor, each: int) -> None:
    """Raise where a mask of rows is not one number for each ``each`` rows of a line."""
    for stream in streams:
        if stream is not None and stream.batch != len(rows) * each:
            found = f"rows= a mask of {len(rows)} for a batch of {stream.batch // each}"
            raise HistoryError(where, found, "one truth value a row", "pass a bool tensor (batch,)")


def refuse_pieces(where: str, pieces: Sequence[Any]) -> None:
    """Raise where rows change between two pieces of a sequence, one ``pieces`` a stream, with something under way."""
    if any(piece is not None and piece.under_way() for piece in pieces):
        found = "rows that change between two pieces of a sequence, while spikes are under way"
        raise HistoryError(where, found, "the same rows in every piece", "reset all rows at once")


def another_input(where: str, stream: Stream, spikes: Tensor, kind: Any) -> HistoryError:
    """Say that an input has another shape, type or place than the spikes under way."""
    now, then = (f"{dtype} on {device} " for _, dtype, device in (kind, stream.kind))
    now, then = ("", "") if now == then else (now, then)
    found = f"an input of {tuple(spikes.shape)} {now}while spikes of a batch of {stream.batch} {then}"
    found += "are under way"
    return HistoryError(where, found, "one batch a sequence", "reset the model before another sequence")


def afford(where: str, steps: int, spikes: Tensor) -> None:
    """Refuse a line whose memory tells of a slip, such as a delay in ms or samples taken for steps.

    Raises:
        DelayRangeError: it is long, and large.
    """
    size = steps * spikes.numel() * spikes.element_size()
    if steps > LONG_LINE and size > LARGE_LINE:
        found = f"a delay of {steps - 1} steps: its line would take {size / 2**30:.1f} GiB "
        found += f"for an input of {tuple(spikes.shape)}, and a training some times as much"
        fix = "give delays in steps, lower max_delay=, take fewer rows at once, or feed whole sequences (time_dim=)"
        expected = f"at most {LONG_LINE} steps, or {LARGE_LINE / 2**30:g} GiB"
        raise DelayRangeError(where, found, expected, fix)
