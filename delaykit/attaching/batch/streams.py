"""The rows of one stream: which tape, and which row of it, remembers the past of each row of the batch.

A tape has as many rows as its first step had. Rows that leave are fed zeros from then on and not read; rows that begin
anew, or come later, get a tape of their own. So the others keep their past, values and gradients, whatever the engine.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from delaykit.synapse import Engine, Stepper


class Part:
    """Some rows of a batch on one tape.

    Args:
        size: number of rows of the tape.
        rows: where each of its rows is in the batch; None for one that has left.
        since: how often the connection had been called when it began.
    """

    def __init__(self, size: int, rows: list[int | None], since: int = 0) -> None:
        self.tape: Stepper | None = None
        self.size, self.rows, self.since = size, rows, since

    def move(self, to: dict[int, int]) -> None:
        """Send rows to other places of the batch; those that ``to`` does not name have left."""
        self.rows = [None if row is None else to.get(row) for row in self.rows]

    @property
    def empty(self) -> bool:
        """Whether no row of the batch is here any more."""
        return all(row is None for row in self.rows)

    def silent(self, before: int | None) -> bool:
        """Tell whether nothing is under way, for sure.

        Args:
            before: count of the connection's calls at the last step, which is left out; None: all count.
        """
        tape: Any = self.tape
        if tape is None or (before is not None and self.since >= before):  # it had that step alone
            return True
        asked = getattr(tape, "silent", None)
        return False if asked is None else bool(asked(before is not None))


class Stream:
    """The past of one stream, for a batch whose rows may leave, come, move and begin anew.

    Args:
        batch: number of rows.
        kind: what an input is beside its rows: shape of a row, dtype, device.
        since: how often the connection had been called when it began.
    """

    def __init__(self, batch: int, kind: Any, since: int = 0) -> None:
        self.batch, self.kind = batch, kind
        self.seen: Any = None  # shape, dtype and device of the last input
        self.parts = [Part(batch, list(range(batch)), since)]
        self._plan: list[tuple[Tensor, Tensor]] | None = None
        self._back: Tensor | None = None

    @property
    def whole(self) -> bool:
        """Whether all rows are on one tape, in order, and fill it."""
        return len(self.parts) == 1 and self.parts[0].rows == list(range(self.batch))

    def step(self, engine: Engine, x: Tensor) -> Tensor:
        """Run one step (batch, pre, *space) -> (batch, post, *space)."""
        first = self.parts[0]
        if self._plan is None and first.tape is not None:  # the common case
            return engine.step(first.tape, x)
        for part in self.parts:
            part.tape = part.tape or engine.tape()
        if self._plan is None:
            return engine.step(first.tape, x)  # type: ignore[arg-type]
        outputs = []
        for part, (rows, slots) in zip(self.parts, self._plan, strict=True):
            own = x.new_zeros(part.size, *x.shape[1:]).index_copy(0, slots, x.index_select(0, rows))
            outputs.append(engine.step(part.tape, own).index_select(0, slots))  # type: ignore[arg-type]
        return torch.cat(outputs).index_select(0, self._back)  # type: ignore[arg-type]

    def select(self, rows: Sequence[int | None], device: torch.device, since: int = 0) -> None:
        """Let row k of the batch go on as ``rows[k]`` has been; None begins with nothing under way.

        A row may be named once: its past cannot go on in two places of one graph. ``since`` counts the connection's
        calls.
        """
        self.batch, self.seen = len(rows), None
        to = {row: k for k, row in enumerate(rows) if row is not None}
        for part in self.parts:
            part.move(to)
        self.parts = [part for part in self.parts if not part.empty]
        fresh = [k for k, row in enumerate(rows) if row is None]
        if fresh or not rows:  # an empty batch has a tape, too
            self.parts.append(Part(len(fresh), list(fresh), since))
        self._index(device)

    def _index(self, device: torch.device) -> None:
        if self.whole or not self.parts:
            self._plan = self._back = None
            return
        self._plan, order = [], []
        for part in self.parts:
            pairs = [(row, slot) for slot, row in enumerate(part.rows) if row is not None]
            rows, slots = ([pair[k] for pair in pairs] for k in (0, 1))
            order += rows
            self._plan.append((torch.tensor(rows, device=device), torch.tensor(slots, device=device)))
        back = [0] * len(order)
        for place, row in enumerate(order):
            back[row] = place
        self._back = torch.tensor(back, device=device)

    def rebind(self, engine: Engine) -> None:
        """Hand this segment's parameters to all tapes."""
        for part in self.parts:
            if part.tape is not None:
                engine.rebind(part.tape)

    def detach(self) -> None:
        """Cut the graph, keep what is under way."""
        for part in self.parts:
            if part.tape is not None:
                part.tape.detach()

    def graph_under_way(self) -> bool:
        """Tell whether a later gradient may have to reach an input of this segment."""
        return any(part.tape is not None and _graph_under_way(part) for part in self.parts)

    def recorded(self) -> bool:
        """Tell whether what is remembered has a graph at all, be it of parameters alone."""
        return any(getattr(part.tape, "recorded", False) for part in self.parts) or self.graph_under_way()

    def silent(self, before: int | None = None) -> bool:
        """Tell whether nothing is under way, for sure; what came since a count of calls is left out on demand."""
        return all(part.silent(before) for part in self.parts)

    def silent_in(self, rows: list[bool], before: int | None = None) -> bool:
        """Tell whether nothing is under way on the tapes of these rows, which may be those of others, too."""
        here = (p for p in self.parts if any(row is not None and row < len(rows) and rows[row] for row in p.rows))
        return all(part.silent(before) for part in here)


def _graph_under_way(part: Part) -> bool:
    asked = getattr(part.tape, "graph_under_way", None)
    return not part.silent(None) if asked is None else bool(asked())
