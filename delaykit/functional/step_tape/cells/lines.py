"""Lines of cells: what inputs write around the present step, once for all synapses, which read it after their delay.

A cell belongs to a moment, some of them to a step, and keeps its row while time goes on; a delay of n cells reads n
rows back. Inputs to come have not been written yet, so nothing arrives before it was sent.
"""

from __future__ import annotations

from torch import Tensor

from delaykit.functional.dispatch import resolve
from delaykit.functional.step_tape.recording import empty_rows, spread

SLACK = 32  # steps after which a line is moved back to its beginning


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
        self._write = resolve("tape_tents", heights.values.device)

    def write(self, source: Tensor, row: int, silent: bool = False) -> None:
        """Go on by a step, and write ``source[:, row]``, unless it is known to be silent."""
        self.advance()
        if not silent:
            self._write(self.rows, self.now + self.heights.first, self.heights.values, source, row)
        if self.gone is None:
            return
        self._begun = row if self._begun is None else self._begun
        steps, heights = self.gone
        ended = row - steps if row > self._begun else row + steps
        if min(self._begun, row) <= ended <= max(self._begun, row):
            self._write(self.rows, self.now + heights.first, heights.values, source, ended)
