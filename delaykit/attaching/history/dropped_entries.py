"""Entries of connections in a list of states, which a caller may leave out where the neurons' states run on.

A bare container has None there, so a list that is written by hand may have it, too. What was under way is then gone, in
silence: so the container keeps the newest entries, and knows whether those of sequences before had anything under way.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from delaykit.errors import HistoryError


class Left(NamedTuple):
    """An entry as a step left it.

    Args:
        entry: itself; only weakly one that comes out of a run ahead, which holds all that the run was given.
        ahead: whether it comes out of a run ahead, and is costly to ask.
        beside: the state of the neuron beside it; None where nobody knows.
    """

    entry: Any
    ahead: bool
    beside: Any


class _Newest(threading.local):
    def __init__(self) -> None:
        self.entries: dict[int, Left] = {}


class DroppedEntries:
    """Beside a container whose list of states carries lines: what was under way in those that may be left out.

    Args:
        begins: tells whether a neuron's state may begin a sequence.
        late: entries, by their place, that other sequences left with something under way, and whether beside a state
            that may begin one.
    """

    def __init__(self, begins: Callable[[Any], bool], late: frozenset[tuple[int, bool]] = frozenset()) -> None:
        self.begins, self.late = begins, late
        self._newest = _Newest()

    def forget(self) -> None:
        """Know nothing of the steps before: the user says that a sequence begins."""
        self.late = frozenset()
        self._newest.entries = {}

    def leave(self, given: Mapping[int, Any], entries: Mapping[int, Left]) -> None:
        """Note a step.

        Args:
            given: the entries that it went on from.
            entries: those that it left.
        """
        for place, left in self._newest.entries.items():
            if not _goes_on(left.entry, given.get(place)):
                self.late |= self._late(place, left)
        self._newest.entries = dict(entries)

    def _late(self, place: int, left: Left) -> frozenset[tuple[int, bool]]:
        if {(place, True), (place, False)} <= self.late or not (left.ahead or left.entry.under_way()):
            return frozenset()
        if left.ahead or left.beside is None:
            return frozenset({(place, True), (place, False)})
        return frozenset({(place, False), (place, self.begins(left.beside))})

    def check(self, where: str, place: int, state: Any) -> None:
        """Begin a step without the entry of a connection, while the neuron beside it has a state.

        Args:
            where: the connection, for messages.
            place: of the entry.
            state: that state.

        Raises:
            HistoryError: it may go on from a step that left something under way.
        """
        newest, rests = self._newest.entries.get(place), self.begins(state)
        if (place, rests) in self.late or (newest is not None and (place, rests) in self._late(place, newest)):
            state = "at rest" if rests else "that runs on"
            raise HistoryError(
                where,
                f"None for this connection's entry of the list of states, beside a neuron's state {state}, while "
                "spikes were under way at the end of a step before: it may go on from there without them",
                "the list that the step before returned, or None for a list that begins anew",
                "keep the entries of connections (torch.utils._pytree.tree_map over the whole state does); call "
                "dk.reset(net) where a sequence begins with states of your own",
            )

    def __reduce__(self) -> tuple[Any, ...]:
        newest = (self._late(place, left) for place, left in self._newest.entries.items())
        return DroppedEntries, (self.begins, self.late.union(*newest))


def _goes_on(entry: Any, given: Any) -> bool:
    entry = entry() if isinstance(entry, weakref.ref) else entry
    line = getattr(entry, "history", None)
    return entry is given or (line is not None and line is getattr(given, "history", None))
