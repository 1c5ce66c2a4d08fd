"""The steps of a neuron whose histories ride in its state: the one that runs now, and what the last one left behind."""

from __future__ import annotations

import dataclasses
import threading
import weakref
from collections import deque
from typing import Any

from torch import Tensor

from delaykit.attaching.history.connection_history import History
from delaykit.attaching.neuron_reading import ReadsNeurons
from delaykit.errors import HistoryError

Histories = dict[str, History]
ASIDE = 64  # sequences left at rest with spikes under way that are known beside the newest
KEEP = "change states with state._replace(...) or torch.utils._pytree.tree_map, or begin a sequence with None"


class _Running(threading.local):
    def __init__(self) -> None:
        self.histories: Histories | None = None
        self.newest: tuple[Histories, Any] | None = None  # what the last step left, and the values of its state
        self.aside: deque[list[weakref.ref[History]]] = deque(maxlen=ASIDE)  # sequences left at rest, not the newest


@dataclasses.dataclass
class CarriedRun:
    """Beside a neuron whose histories ride in its state: those of the step that runs now, in this thread.

    It also knows what its last step left, and which other sequences were left at rest with spikes under way. A state
    that was rebuilt by hand has lost its histories, and where it is at rest it looks like one that begins a sequence.

    Args:
        adapter: who tells a state that begins a sequence from a running one.
    """

    adapter: ReadsNeurons
    _local: _Running = dataclasses.field(default_factory=_Running, compare=False, repr=False)

    def leave(self, histories: Histories, state: Any) -> None:
        """Note what a step left; no graph is kept."""
        local = self._local
        if local.newest is not None and local.newest[0] is not histories:
            self._set_aside()
        if local.aside:
            mine = set(histories.values())
            kept = [lines for lines in local.aside if not any(line() in mine for line in lines)]
            local.aside = deque(kept, maxlen=ASIDE)
        local.newest = histories, _values(state)

    def _set_aside(self) -> None:
        """Remember of the last step that its sequence may go on at rest, now that another one is stepped."""
        newest, self._local.newest = self._local.newest, None
        if newest is not None and any_under_way(newest[0]) and self.adapter.begins(newest[1]):
            self._local.aside.append([weakref.ref(line) for line in newest[0].values()])

    def begin(self, where: str, state: Any, rebuilt: bool) -> None:
        """Begin a sequence on a state without histories.

        Args:
            where: site name, for messages.
            state: None, or one at rest.
            rebuilt: whether it is of the class that carries histories, and so was made of a running one.

        Raises:
            HistoryError: it may be the state that a step left at rest, while spikes were under way: the last one, or
                that of another sequence.
        """
        if state is None:
            self._set_aside()
            return
        newest = self._local.newest
        rests = newest is not None and self.adapter.begins(newest[1])
        late = bool(self._local.aside) or (newest is not None and rests and any_under_way(newest[0]))
        if late or (rebuilt and newest is not None and not rests):
            raise HistoryError(
                where,
                f"a {type(state).__name__} at rest without delay history, behind a step that left "
                + ("one at rest, too, with spikes under way" if late else "one that is not")
                + ": it may be a state rebuilt by hand, or begin a sequence",
                "None where a sequence begins, else the state that the step before returned",
                f"pass None, or call dk.reset(net), to begin; {KEEP}",
            )
        self._local.newest = None

    def forget(self) -> None:
        """Know nothing of the steps before: the user says that a sequence begins."""
        self._local.newest = None
        self._local.aside.clear()

    @property
    def running(self) -> Histories | None:
        """Histories by slot, None between steps."""
        return self._local.histories

    @running.setter
    def running(self, histories: Histories | None) -> None:
        self._local.histories = histories

    def __reduce__(self) -> tuple[Any, ...]:
        return CarriedRun, (self.adapter,)


def any_under_way(histories: Histories) -> bool:
    """Tell whether a later step may hear of an input that is in one of these lines."""
    return any(history.under_way() for history in histories.values())


def _values(state: Any) -> Any:
    parts = [v.detach() if isinstance(v, Tensor) else _values(v) if isinstance(v, tuple) else v for v in state]
    return type(state)(*parts) if hasattr(state, "_fields") else tuple(parts)
