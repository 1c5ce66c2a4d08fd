"""The synapses of a recurrent layer, each two steps wide, read from rows of the past some steps ahead.

:mod:`delaykit.functional.llvm.recurrence.reading_ahead` says why. Backwards it is the same, for a past that lies in the
future.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType

import numpy as np
from torch import Tensor

from delaykit.functional.compiled import array

VECTOR_BYTES = 64
NEAR_BYTES = 65536  # of rows that all outputs read again and again, half of them from the first cache
FEWEST = 8  # inputs that are worth loading and storing the sums of an output
SLACK = 32  # steps for which a history need not be moved


class Ahead:
    """What synapses give at each step, inputs taken one by one.

    Args:
        kernels: the compiled steps.
        cell: the step before each delay, ``(post, pre)``, or a transposed view of it, int32.
        weights: like ``cell``, of that step and of the next one.
        steps: of the sequence; what comes later is left out.
        batch: rows.
    """

    def __init__(self, kernels: ModuleType, cell: Tensor, weights: Sequence[Tensor], steps: int, batch: int) -> None:
        self.kernels = kernels
        outputs, inputs = cell.shape
        self.longest = min(int(cell.max()) + 1, steps)
        self.lanes = VECTOR_BYTES // weights[0].element_size()
        self.room = self.longest + SLACK
        stride = self.lanes * (self.room | 1)  # odd: rows lie in different parts of a cache
        shares = -(-batch // self.lanes)
        self.whole = not bool(weights[1].any())
        self.history = weights[0].new_zeros(shares, inputs, stride)
        self.flat = self.history.flatten(1)  # the same numbers
        self.now, self.phase = self.longest, 0  # of the step to come
        self.listed = self._list(cell, weights, steps)
        self.sums = weights[0].new_empty(shares, outputs * kernels.AHEAD * self.lanes)
        self.out = weights[0].new_empty(batch, outputs)

    def _list(self, cell: Tensor, weights: Sequence[Tensor], steps: int) -> list[tuple[np.ndarray, ...]]:
        """List the synapses; see ``list_ahead``."""
        (outputs, inputs), stride = cell.shape, self.history.shape[2]
        turned = not cell.is_contiguous()
        flat = [array((x.t() if turned else x).contiguous().view(-1)) for x in (cell, *weights)]
        near = (self.longest + self.kernels.AHEAD) * self.lanes * weights[0].element_size()
        few, room = max(FEWEST, NEAR_BYTES // near), cell.numel() + 1
        lists = [
            (
                np.empty((blocks, outputs + 1), np.int64),
                np.empty(room, np.int32 if inputs * stride < 2**31 else np.int64),
                *(np.empty(room, flat[1].dtype) for _ in range(2)),
            )
            for blocks in (-(-inputs // few), 1)
        ]
        moves = outputs, inputs, *((1, outputs) if turned else (inputs, 1)), stride, self.lanes
        self.kernels.list_ahead(*flat, steps, few, moves, *lists)
        return lists

    def follow(self, past: list[Tensor]) -> None:
        """Begin after these inputs, each ``(batch, pre)``, the newest last."""
        for x in past[-self.longest :]:
            self._make_room()
            at = self.now * self.lanes
            for rows, history in zip(x.split(self.lanes), self.history, strict=True):
                history[:, at : at + len(rows)] = rows.t()
            self.now += 1

    def read(self, x: Tensor) -> Tensor:
        """Take in the input ``(batch, pre)`` of the next step; return ``(batch, post)``, valid until the next call."""
        self._make_room()
        place = self.now * self.lanes, self.history.shape[2], self.lanes, self.phase, self.whole
        given, result, history, sums = (array(t) for t in (x, self.out, self.flat, self.sums))
        self.kernels.read_ahead(given, history, *place, *self.listed, sums, result)
        self.now, self.phase = self.now + 1, (self.phase + 1) % self.kernels.AHEAD
        return self.out

    def _make_room(self) -> None:
        if self.now == self.room:
            kept, end = self.longest * self.lanes, self.now * self.lanes
            self.history[..., :kept] = self.history[..., end - kept : end].clone()
            self.now = self.longest
