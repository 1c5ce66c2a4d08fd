"""What became of a neuron's membrane, told to the histories of its connections."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from torch import Tensor

from delaykit.attaching.batch import refusals
from delaykit.attaching.batch.membranes import Change, LeftMembrane
from delaykit.attaching.batch.moved_and_edited import moved_and_edited, taken_by_row
from delaykit.attaching.history.connection_history import History


class TellsLines:
    """The part of a neuron's watch that passes changes of the membrane on.

    Attributes:
        resets: how often the membrane began anew.
        cuts: how often it lost its graph.
        owned: histories of the neuron's own connections.
        inputs: histories of the connections that lead to it.
        followers: histories that its resets empty.
    """

    path: str
    resets: int
    cuts: int
    owned: list[History]
    _left: deque[LeftMembrane]
    inputs: list[History]
    followers: list[History]

    def _certain(self, change: Change, membrane: Tensor | None) -> Change:
        """Return a change as it was read, or one of which nobody can tell: an edit that may be of rows elsewhere."""
        left = self._left[0]
        if change.kind != "edit" or membrane is None or left.tensor is None or left.values is None:
            return change
        if not any(history.under_way() for history in (*self.inputs, *self.followers, *self.owned)):
            return change
        moved = taken_by_row(membrane, left.tensor) or moved_and_edited(left.values, membrane)
        return Change("unclear") if moved else change

    def _tell(self, change: Change, histories: tuple[History, ...] | list[History]) -> None:
        """Pass a change on to histories that have not been stepped since."""
        self.cuts += change.cut
        if change.kind == "reset":
            self.resets += 1
        elif change.kind == "rows":
            assert change.rows is not None
            for history in histories:
                history.clear_rows_with(self, change.rows)
        elif change.kind == "resized":
            self._resize(histories, change.batch)
        elif change.kind == "unclear":
            late = [h.where for h in histories if h.under_way()]
            if late:
                raise refusals.two_readings(self.path, change, late[0])

    def _tell_owned(self, change: Change) -> None:
        """Pass a handed membrane's change on to the neuron's own connections, which see it in time."""
        for history in self.owned:
            if change.kind == "reset":
                history.clear()
            elif change.kind == "rows" and change.rows is not None:
                history.clear_rows(change.rows)
            elif change.kind == "resized":
                self._resize([history], change.batch)
            elif change.kind == "unclear" and history.under_way():
                raise refusals.two_readings(self.path, change, history.where)

    def _resize(self, histories: Iterable[History], batch: int) -> None:
        if (before := self._left[0].tensor) is not None:
            for history in histories:
                history.resize(len(before), batch, before.device)
