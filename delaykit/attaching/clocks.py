"""When a sequence begins: each reset policy is one :class:`Clock`, asked before every step of its connection.

``root`` listens to the calls of the wrapped model (:class:`RootScope`), ``follow`` to the membrane of a neuron
(:class:`NeuronWatch`), ``manual`` to nobody; in policy ``carried`` the history rides in the caller's state
(:mod:`~delaykit.attaching.carried_states`), and no clock is asked.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Literal, Protocol

from torch import Tensor, nn

from delaykit.attaching.histories import History, Moment
from delaykit.errors import HistoryError

Policy = Literal["root", "follow", "carried", "manual"]
POLICIES: tuple[str, ...] = ("root", "follow", "carried", "manual")


@dataclasses.dataclass(frozen=True)
class Timing:
    """How a site lives in time, decided by the plan.

    Args:
        policy: when its history is cleared.
        time_dim: dimension of its input that is time, if it sees whole sequences; None in step mode.
        streams: number of independent streams that take turns within one step (a shared layer called n times a step).
        asked: True where the policy is the user's own choice, not the plan's.
    """

    policy: Policy = "root"
    time_dim: int | None = None
    streams: int = 1
    asked: bool = False


class RootScope:
    """Counts the calls of the wrapped root, the outermost ones only."""

    def __init__(self) -> None:
        self.serial, self.depth = 0, 0
        self.histories: list[History] = []

    def enter(self) -> None:
        """Begin a call; only the outermost one counts."""
        self.depth += 1
        if self.depth == 1:
            self.serial += 1

    def leave(self, failed: bool) -> None:
        """End a call; at the end of the outermost one the histories are let go."""
        self.depth -= 1
        if self.depth == 0:
            for history in self.histories:
                history.close(check=not failed)

    def __deepcopy__(self, memo: dict[int, Any]) -> RootScope:
        copy = memo[id(self)] = RootScope()
        copy.histories = [memo.setdefault(id(h), History()) for h in self.histories]
        return copy

    def __getstate__(self) -> dict[str, Any]:
        return {"serial": 0, "depth": 0, "histories": self.histories}


class LeftMembrane:
    """The membrane that a neuron's own last step left behind; tells whether another one is still the same."""

    def __init__(self) -> None:
        self._left: Tensor | None = None  # shares the membrane's storage, so its address cannot be reused
        self._graph, self._version = False, 0

    def keep(self, membrane: Tensor | None) -> None:
        """Remember a membrane as it is now."""
        if membrane is None:
            self._left = None
            return
        self._left, self._graph, self._version = membrane.detach(), membrane.requires_grad, _version(membrane)

    def look(self, membrane: Tensor | None) -> Literal["same", "cut", "fresh"]:
        """Compare a membrane with the one left behind: the same, without its graph (TBPTT), or another (a reset)."""
        left = self._left
        if left is None or membrane is None or membrane.numel() == 0:
            return "fresh"
        if membrane.data_ptr() != left.data_ptr() or membrane.shape != left.shape:
            return "fresh"
        if _version(membrane) != self._version and not bool(membrane.detach().any()):
            return "fresh"  # zeroed in place
        return "cut" if self._graph and not membrane.requires_grad else "same"


def _version(tensor: Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version  # inference tensors do not count their changes


class ReadsMembrane(Protocol):
    """The part of an adapter that a watch asks."""

    def membrane(self, module: nn.Module) -> Tensor | None:
        """Return the membrane that a neuron keeps between its calls, or None before the first."""

    def given_membrane(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Tensor | None:
        """Return the membrane that a call passes explicitly, or None."""


class NeuronWatch:
    """Knows whether a neuron's membrane is the one that the neuron's own last step left behind.

    ``resets`` grows when the membrane was replaced, ``cuts`` when it only lost its graph (TBPTT).

    Args:
        module: the neuron.
        adapter: who knows where its membrane is.
    """

    def __init__(self, module: nn.Module, adapter: ReadsMembrane) -> None:
        self.module, self.adapter = module, adapter
        self._begin([])

    def _begin(self, followers: list[History]) -> None:
        self.followers = followers
        self.resets, self.cuts, self.steps = 0, 0, 0
        self.inside = False
        self._left = LeftMembrane()

    def moment(self) -> Moment:
        """Return the moment as of now, counting a reset that the neuron itself has not met yet."""
        if self.inside:
            return Moment(self.resets, self.cuts)
        seen = self._left.look(self.adapter.membrane(self.module))
        return Moment(self.resets + (seen == "fresh"), self.cuts + (seen == "cut"))

    def forget(self) -> None:
        """Note a reset that the library has just made: whatever membrane comes next is a new one."""
        self._left = LeftMembrane()

    def enter(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], where: str) -> None:
        """Begin a step of the neuron, called with these arguments."""
        held, given = self.adapter.membrane(self.module), self.adapter.given_membrane(self.module, args, kwargs)
        seen = self._left.look(held if given is None else given)
        if given is not None and seen == "fresh" and self._left.look(held) != "fresh":
            stale = [h for h in self.followers if h.age > 1]
            if stale:
                raise HistoryError(
                    where,
                    "a fresh state passed by hand after its delayed inputs were stepped with the old history",
                    "a reset that can be seen before the step (neuron.reset_mem(), snntorch.utils.reset)",
                    "wrap with reset='manual' and call dk.reset(net) before each sequence",
                )
        self.resets += seen == "fresh"
        self.cuts += seen == "cut"
        self.steps += 1
        self.inside = True

    def leave(self) -> None:
        """End a step and remember the membrane it left."""
        self.inside = False
        self._left.keep(self.adapter.membrane(self.module))

    def __getstate__(self) -> dict[str, Any]:
        return {"module": self.module, "adapter": self.adapter, "followers": self.followers}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.module, self.adapter = state["module"], state["adapter"]
        self._begin(state["followers"])


class Clock(ABC):
    """Tells a connection when a sequence began; a policy is one of these."""

    @abstractmethod
    def moment(self) -> Moment:
        """Return the moment of a call that is made now."""


class RootClock(Clock):
    """A sequence is one call of the root; a neuron's own connection also begins anew with its neuron.

    Args:
        where: site name, for messages.
        scope: the wrapped root.
        watch: the neuron that the connection is part of, if it is.
    """

    def __init__(self, where: str, scope: RootScope, watch: NeuronWatch | None) -> None:
        self.where, self.scope, self.watch = where, scope, watch

    def moment(self) -> Moment:
        resets, cuts = (None, None) if self.watch is None else self.watch.moment()
        if self.scope.depth == 0:
            raise HistoryError(
                self.where,
                "a call outside net(...)",
                "calls from inside the wrapped model's forward, where a sequence begins",
                "call the wrapped model itself, or wrap with reset='manual' and dk.reset(net) before each sequence",
            )
        return Moment((self.scope.serial, resets), cuts)


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
    """Sequences begin when ``dk.reset`` is called."""

    def moment(self) -> Moment:
        return Moment()


def clock_of(policy: Policy, where: str, scope: RootScope, watch: NeuronWatch | None, owned: bool) -> Clock:
    """Make the clock of a connection; one inside a neuron (``owned``) always notices that neuron's resets."""
    listens = watch if policy == "follow" or owned else None
    if policy == "root":
        return RootClock(where, scope, listens)
    return ManualClock() if listens is None else FollowClock(listens)
