"""When a sequence begins: each reset policy is one :class:`Clock`, asked before every step of its connection.

``root`` listens to the calls of the wrapped model (:class:`RootScope`) and to the library's own reset of its neuron,
``follow`` to the membrane of that neuron (:class:`~delaykit.attaching.watches.NeuronWatch`), ``manual`` to nobody, but
it knows calls of the model that failed; in policy ``carried`` the history rides in the caller's state
(:mod:`~delaykit.attaching.history.carried_states`), and no clock is asked.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from typing import Literal

from delaykit.attaching.history.connection_history import Moment
from delaykit.attaching.scope import RootScope
from delaykit.attaching.watches import NeuronWatch
from delaykit.errors import HistoryError

Policy = Literal["root", "follow", "carried", "manual"]
RowLayout = Literal["same", "grouped", "moved"]
POLICIES: tuple[str, ...] = ("root", "follow", "carried", "manual")
LAYOUTS: tuple[str, ...] = ("same", "grouped", "moved")


@dataclasses.dataclass(frozen=True)
class Timing:
    """How a site lives in time, decided by the plan.

    Args:
        policy: when its history is cleared.
        time_dim: dimension of its input that is time, if it sees whole sequences; None in step mode.
        streams: number of independent streams that take turns within one step (a shared layer called n times a step).
        asked: True where the policy is the user's own choice, not the plan's.
        rows: where the rows of its input are among those of the neuron: in the same places; several in turn for each of
            them (``grouped``, a batch of patches in one dimension); or elsewhere.
    """

    policy: Policy = "root"
    time_dim: int | None = None
    streams: int = 1
    asked: bool = False
    rows: RowLayout = "same"


def emptied_by(timing: Timing, neuron: str | None) -> str:
    """Say which events empty the line of a connection.

    Args:
        timing: how it lives in time.
        neuron: name of the neuron that it follows or leads to, or None.
    """
    moved = timing.rows == "moved" or (timing.rows != "same" and timing.policy == "carried")
    rows = "mem at zero, as a whole" if moved else "mem at zero, row by row"
    how = "reset_mem and the like" + (f"; {rows}" if timing.policy == "follow" else "")
    reset = "" if neuron is None else f"reset of {neuron or 'the neuron'} ({how}), "
    whole = "; as a whole: its input has other rows than the neuron" if moved else ""
    if timing.policy == "carried":
        return "a state of None" + (whole or "; rows of the state at zero, or at rest")
    if timing.policy == "manual":
        return "every call" if timing.time_dim is not None else "dk.reset" + whole
    return (f"net(...) begins, {reset}" if timing.policy == "root" else reset) + "dk.reset" + whole


class Clock(ABC):
    """Tells a connection when a sequence began; a policy is one of these."""

    @abstractmethod
    def moment(self) -> Moment:
        """Return the moment of a call that is made now."""


class RootClock(Clock):
    """A sequence is one call of the root, or what follows the library's own reset of the neuron within it.

    Args:
        where: site name, for messages.
        scope: the wrapped root.
        watch: the neuron that the connection leads to, or is part of; None where none is known.
        owned: whether it is part of it, and so sees every state before it is used.
    """

    def __init__(self, where: str, scope: RootScope, watch: NeuronWatch | None, owned: bool) -> None:
        self.where, self.scope, self.watch, self.owned = where, scope, watch, owned

    def moment(self) -> Moment:
        if self.scope.depth == 0:
            raise HistoryError(
                self.where,
                "a call outside net(...), or of a copy of a wrapped layer, which belongs to no wrapped model",
                "calls from inside the wrapped model's forward, where a sequence begins",
                "call the wrapped model itself (copy all of it, or wrap after copying layers), or wrap with "
                "reset='manual' and dk.reset(net) before each sequence",
            )
        if self.watch is None:
            return Moment(self.scope.serial)
        if not self.owned:
            return Moment((self.scope.serial, self.watch.forgotten))
        # What the membrane lost is not what spikes under way have: within forward a line is cut by dk.detach alone.
        return Moment((self.scope.serial, self.watch.moment().sequence))


class FollowClock(Clock):
    """A sequence begins when the neuron's membrane is a new one.

    Args:
        watch: that neuron.
    """

    def __init__(self, watch: NeuronWatch) -> None:
        self.watch = watch

    def moment(self) -> Moment:
        return self.watch.moment()


class ManualClock(Clock):
    """Sequences begin when ``dk.reset`` is called.

    Args:
        scope: the wrapped root, one of whose calls may fail behind a step of the connection.
    """

    def __init__(self, scope: RootScope) -> None:
        self.scope, self._serial = scope, 0

    def moment(self) -> Moment:
        scope, before = self.scope, self._serial
        self._serial = call = scope.serial if scope.depth else 0
        return Moment(again=bool(before) and scope.unfinished and before == scope.failed, call=call)


def clock_of(policy: Policy, where: str, scope: RootScope, watch: NeuronWatch | None, owned: bool) -> Clock:
    """Make the clock of a connection; one inside a neuron (``owned``) always notices that neuron's resets."""
    if policy == "root":
        return RootClock(where, scope, watch, owned)
    listens = watch if policy == "follow" or owned else None
    return ManualClock(scope) if listens is None else FollowClock(listens)
