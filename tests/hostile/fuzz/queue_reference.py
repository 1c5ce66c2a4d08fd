"""Delay lines as queues, hung into a bare model by hooks: torch and the library only, no code of delaykit.

A :class:`Line` keeps the past of every row of every stream in a list. Layer, axonal and synaptic lines hold spikes, and
the weight of the arrival multiplies them; dendritic lines hold currents, made with the weight of their own step. What
empties a line is told to it: :meth:`Line.clear`, :meth:`Line.clear_rows`, :meth:`Line.keep_rows`, :meth:`Line.cut`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def arriving(queue: list[Tensor], delay: Tensor) -> Tensor:
    """Read a queue (newest last) at real delays: linear interpolation between steps."""
    out = torch.zeros_like(queue[-1])
    for k in range(min(len(queue), math.ceil(float(delay.max())) + 2)):
        out = out + (1 - (k - delay).abs()).clamp(min=0) * queue[-1 - k]
    return out


def reading(old: Tensor, new: Tensor) -> str | Tensor:
    """Say what a replaced or edited membrane means for the line: continue, cut, reset, unclear, or a mask of rows.

    Equal values continue, cut for gradients if their graph is gone; all zero where some value was not: a reset; some
    rows newly zero and all others unchanged: those rows; no row newly zero: an edit, spikes arrive; else nobody knows.
    """
    cut = "cut" if old.requires_grad and not new.requires_grad else "continue"
    old, new = old.detach(), new.detach()
    if torch.equal(old, new):
        return cut
    if not new.any():
        return "reset"
    gone = (old != 0).flatten(1).any(1) & ~(new != 0).flatten(1).any(1)
    if not gone.any():
        if sorted(map(tuple, old.tolist())) == sorted(map(tuple, new.tolist())):
            return "unclear"  # the same rows in other places
        return cut
    return gone if torch.equal(old[~gone], new[~gone]) else "unclear"


class Line:
    """The line of one connection.

    Args:
        module: the bare connection; its forward is replaced by one that goes through the line.
        delay: (), (pre,), (post,) or (post, pre).
        granularity: of the delay.
        streams: how many streams take turns.
    """

    def __init__(self, module: nn.Linear, delay: Tensor, granularity: str, streams: int = 1) -> None:
        self.module, self.delay, self.granularity, self.streams = module, delay, granularity, streams
        self.clear()
        module.forward = self.run  # the bare model's own module, replaced on the object

    def clear(self) -> None:
        """Empty the line: the library's own reset, the beginning of a root call, a state of None."""
        self.rows: list[list[list[Tensor]]] = [[] for _ in range(self.streams)]
        self.calls = 0

    def clear_rows(self, mask: Tensor) -> None:
        """Empty the lines of some rows."""
        for stream in self.rows:
            for row, gone in enumerate(mask.tolist()):
                if gone and row < len(stream):
                    stream[row] = []

    def keep_rows(self, rows: list[int]) -> None:
        """Select, permute or drop rows."""
        self.rows = [[list(stream[row]) for row in rows] if stream else [] for stream in self.rows]

    def cut(self) -> None:
        """Keep what is under way, forget its graph."""
        self.rows = [[[x.detach() for x in queue] for queue in stream] for stream in self.rows]

    def run(self, x: Tensor) -> Tensor:
        """Take one step."""
        stream = self.rows[self.calls % self.streams]
        self.calls += 1
        if not stream:
            stream.extend([] for _ in range(len(x)))
        assert len(stream) == len(x), "a batch that changed without a word"
        module = self.module
        weight, bias = module.weight, module.bias
        behind = self.granularity == "dendritic"
        for queue, row in zip(stream, nn.functional.linear(x, weight) if behind else x, strict=True):
            queue.append(row)
        if self.granularity == "synaptic":
            out = torch.stack([self._synapses(queue) for queue in stream])
        else:
            out = torch.stack([arriving(queue, self.delay) for queue in stream])
            out = out if behind else nn.functional.linear(out, weight)
        return out if bias is None else out + bias

    def _synapses(self, queue: list[Tensor]) -> Tensor:
        out = torch.zeros(*queue[-1].shape[:-1], len(self.delay), dtype=queue[-1].dtype)
        for k in range(min(len(queue), math.ceil(float(self.delay.max())) + 2)):
            tap = (1 - (k - self.delay).abs()).clamp(min=0)
            out = out + queue[-1 - k] @ (self.module.weight * tap).t()
        return out
