"""Lines of cells: what inputs write around the present step, once for all synapses, which read it after their delay.

A cell belongs to a moment, some of them to a step, and keeps its row while time goes on; a delay of n cells reads n
rows back. Inputs to come have not been written yet, so nothing arrives before it was sent.
"""

from __future__ import annotations

from torch import Tensor

from delaykit.functional.dispatch import implementation_of
from delaykit.functional.step_tape.recording import empty_rows, spread

SLACK = 32  # steps after which a line is moved back to its beginning
LATER = 8  # steps whose writes to cells far ahead are made at once: a line is longer than a cache that is near


class Line:
    """The cells of one stream, ``(channel, cell, chunk)``, which move on by some rows a step.

    Args:
        phases: rows a step.
        behind: rows before that of now which are still needed.
        ahead: rows after it that may be written to.
        like: an empty tensor of the dtype and device of the rows.
        shape: ``(channel, chunk)``.

    Attributes:
        rows: the cells.
        now: row of the first cell of this step.
    """

    def __init__(self, phases: int, behind: int, ahead: int, like: Tensor, shape: tuple[int, int]) -> None:
        self.phases, self.behind, self.ahead = phases, behind + 1, ahead
        size = spread(self.behind + SLACK * phases + ahead + 2)
        self.rows = empty_rows((shape[0], size, shape[1]), like.dtype, like.device).zero_()
        self.now = self.behind - phases

    def advance(self) -> None:
        """Go on by a step."""
        self.now += self.phases
        if self.now + self.ahead + 2 > self.rows.shape[1]:
            kept = self.rows[:, self.now - self.behind : self.now + self.ahead + 1].clone()
            self.rows[:, : kept.shape[1]] = kept
            self.rows[:, kept.shape[1] :] = 0
            self.now = self.behind


class Heights:
    """What an input writes into the cells around it, or what is read out of them: some rows, beginning somewhere.

    Args:
        first: row of the first of them, from now.
        values: ``(1 or channel, row)``.
    """

    def __init__(self, first: int, values: Tensor) -> None:
        self.first, self.values, self.last = first, values, first + values.shape[1] - 1

    def mirrored(self) -> Heights:
        """Return the same upside down: rows ahead for rows behind."""
        return Heights(-self.last, self.values.flip(1).contiguous())


class Written(Line):
    """A line that a stream is written into, row by row of it, forwards or backwards.

    Nobody reads a cell before its moment has come. So what some steps write beyond the next ones waits, and is then
    added in one go, in the order in which it would have been.

    Args:
        phases: see :class:`Line`.
        farthest: rows that the longest delay is late.
        heights: what a row of the stream writes.
        shape: see :class:`Line`.
        gone: None, or how many steps later a row ends, and what is then written of it, to take the rest back.
    """

    def __init__(
        self, phases: int, farthest: int, heights: Heights, shape: tuple[int, int],
        gone: tuple[int, Heights] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(phases, max(farthest, -heights.first), max(heights.last, 0), heights.values, shape)
        self.heights, self.gone = heights, gone
        self._begun: int | None = None
        device, self._step = heights.values.device, 0
        self._write = implementation_of("tape_tents", device)
        self._write_pending = implementation_of("tape_pending", device)
        self._soon: list[int] = []  # how many rows of its heights each step of a block writes at once
        if heights.last > 2 * LATER * phases:  # else little waits
            self._pending = empty_rows((shape[0], LATER, shape[1]), heights.values.dtype, device)
            self._soon = [(left + 1) * phases - heights.first for left in range(LATER, 0, -1)]

    def write(self, source: Tensor, row: int, silent: bool = False) -> None:
        """Go on by a step, and write ``source[:, row]``, unless it is known to be silent."""
        self.advance()
        if not silent:
            count = self._soon[self._step] if self._soon else self.heights.values.shape[1]
            self._write(self.rows, self.now + self.heights.first, self.heights.values, source, row, count)
        if self._soon:
            self._put_off(source, row, silent)
        if self.gone is None:
            return
        self._begun = row if self._begun is None else self._begun
        steps, heights = self.gone
        ended = row - steps if row > self._begun else row + steps
        if min(self._begun, row) <= ended <= max(self._begun, row):
            self._write(self.rows, self.now + heights.first, heights.values, source, ended, heights.values.shape[1])

    def _put_off(self, source: Tensor, row: int, silent: bool) -> None:
        """Let the cells wait that are read after the steps of this block, and write all of them behind the last one."""
        waits = self._pending[:, self._step]
        waits.zero_() if silent else waits.copy_(source[:, row])
        self._step = (self._step + 1) % LATER
        if self._step == 0:
            begin = 2 * self.phases  # one step more than this one's: the slope of a triangle looks a cell ahead
            values = self.heights.values
            self._write_pending(
                self.rows, self.now + begin, values, begin - self.heights.first, self.phases, self._pending
            )
