"""A reset that the library made of a neuron whose membrane is in the caller's hands: does the sequence begin anew?

Such a reset writes into the neuron, and the next step overwrites it with the membrane that the caller hands on. Where
that is a fresh one, a sequence begins; where it is the running one, the reset was none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from torch import Tensor

from delaykit.attaching.batch import refusals
from delaykit.attaching.batch.membranes import LeftMembrane


class AskedReset:
    """Knows the membranes that a neuron had left when it was reset, while spikes were under way; false: none were."""

    def __init__(self) -> None:
        self._left: list[LeftMembrane] = []
        self._late, self._alone = "", True

    def __bool__(self) -> bool:
        return bool(self._left)

    def note(self, left: Iterable[LeftMembrane], late: Sequence[str], alone: bool) -> None:
        """Note a reset; no graph is kept.

        Args:
            left: the membranes.
            late: names of the connections with spikes under way.
            alone: whether of nothing but this neuron, so that other values than the running ones are a beginning's own.
        """
        if not late:  # or an earlier reset, of which the next step has to tell, has emptied the lines
            self._alone |= alone
            return
        self._left, self._late, self._alone = list(left), late[0], alone
        for each in self._left:
            each.release()

    def forget(self) -> None:
        """Know of none: the user says that a sequence begins."""
        self._left = []

    def check(self, path: str, membrane: Tensor | None, of_one_sample: Callable[[], bool]) -> None:
        """Look at the membrane that comes next.

        Raises:
            HistoryError: it is, or may be, a running one.
        """
        asked, self._left = self._left, []
        if membrane is None or not bool(membrane.any()):
            return
        changes = [left.look(membrane, of_one_sample).kind for left in asked]
        if any(kind in RUNNING or (kind == "edit" and not self._alone) for kind in changes):
            raise refusals.reset_and_running(path, self._late)


RUNNING = ("same", "rows", "resized")
