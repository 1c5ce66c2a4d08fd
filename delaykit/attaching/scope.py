"""The calls of a wrapped root: where sequences begin and end, and who is told."""

from __future__ import annotations

import copy
import threading
from collections.abc import Sequence
from typing import Any, Protocol

from torch import Tensor

from delaykit.attaching.batch.tensors import tensors_in
from delaykit.attaching.history.connection_history import History
from delaykit.errors import HistoryError
from delaykit.functional.eager import eager


class HearsCalls(Protocol):
    """A neuron's watch, as it is told of calls."""

    def may_be_cut(self) -> bool:
        """Tell whether what a call is given may be its membrane without the graph."""

    def foresee(self, given: list[Tensor]) -> None:
        """Look at what a call is given."""

    def release(self) -> list[HistoryError]:
        """End a call; return what was wrong with it."""


class RootScope:
    """Counts the calls of the wrapped root, the outermost ones only; one thread at a time.

    Attributes:
        serial: number of calls that have begun.
        failed: which of them was the last to fail; 0: none.
    """

    def __init__(self) -> None:
        self.serial, self.depth, self.failed = 0, 0, 0
        self.histories: list[History] = []
        self.watches: list[HearsCalls] = []
        self._turn = threading.RLock()

    def enter(self) -> None:
        """Begin a call; only the outermost one counts.

        Raises:
            HistoryError: another thread is inside.
        """
        if (self.histories or self.watches) and not self._turn.acquire(blocking=False):
            raise HistoryError(
                "net",
                "a call while another thread is inside the same model, whose delays remember one run",
                "one thread at a time",
                "give each thread a copy (copy.deepcopy), or hold a threading.Lock around the call",
            )
        self.depth += 1
        if self.depth == 1:
            self.serial += 1

    @property
    def unfinished(self) -> bool:
        """Whether the call before this one, or the last one, failed."""
        return 0 < self.failed == self.serial - (self.depth > 0)

    @eager  # graphs are asked for
    def foresee(self, args: Any, kwargs: Any) -> None:
        """Look at what the outermost call is given: membranes that were detached cut lines that are stepped first."""
        late = [watch for watch in self.watches if watch.may_be_cut()]
        if late:
            given = tensors_in((args, kwargs))
            for watch in late:
                watch.foresee(given)

    def watch(self, watches: Sequence[HearsCalls]) -> None:
        """Let neurons be told when a call ends."""
        self.watches += [watch for watch in watches if watch not in self.watches]

    def leave(self, failed: bool) -> None:
        """End a call; at the end of the outermost one the histories are let go."""
        problems: list[HistoryError] = []
        if self.depth == 1:
            problems = [error for watch in self.watches for error in watch.release()]
            for history in self.histories:
                history.close(failed)
            if failed:
                self.failed = self.serial
        self.depth -= 1
        if self.histories or self.watches:
            self._turn.release()
        if problems and not failed:
            raise problems[0]

    def __deepcopy__(self, memo: dict[int, Any]) -> RootScope:
        twin = memo[id(self)] = RootScope()
        twin.histories, twin.watches = copy.deepcopy(self.histories, memo), copy.deepcopy(self.watches, memo)
        return twin

    def __getstate__(self) -> dict[str, Any]:
        return {"histories": self.histories, "watches": self.watches}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__()  # type: ignore[misc]
        self.__dict__ |= state
