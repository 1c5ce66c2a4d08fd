"""States that carry delay histories: a NamedTuple subclass that survives ``_replace`` and ``tree_map``.

Histories follow the rows of the state: what ``tree_map`` does to rows is done to their numbers
(:mod:`~delaykit.attaching.batch.rows`), and what is done by hand is read off the values, as with a membrane.
"""

from __future__ import annotations

import dataclasses
import functools
import threading
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils import _pytree

from delaykit.attaching.batch.rows import Rows, moved, number
from delaykit.attaching.batch.states import LeftState, read_values, tensors_of
from delaykit.attaching.history.histories import History
from delaykit.errors import HistoryError
from delaykit.functional.eager import eager

Histories = dict[str, History]
COPY = "a copy of a state: what is under way stays with the original"
LATE_COPY = COPY + ", and something was"  # it may be at rest, as one that begins a sequence is, and is none
KEEP = "change states with state._replace(...) or torch.utils._pytree.tree_map, or begin a sequence with None"


class CarriedHistories:
    """What rides in a state: the histories of a cell's connections, and when they were last stepped.

    Args:
        histories: by slot.
        state: what the library returned.
        owner: the cell's own record: no other cell may go on from this state.
    """

    def __init__(self, histories: Histories, state: Any, owner: Any = None) -> None:
        self.histories, self.owner = histories, owner
        self.left = LeftState(state, tensors_of(state))
        self.ages = {slot: h.age for slot, h in histories.items()}
        self.had_graph = _has_graph(state)


@functools.cache
def carrying_class(state_class: type) -> type:
    """Make the subclass of a state's NamedTuple that has histories."""

    def replace(self: Any, **changes: Any) -> Any:
        return with_histories(state_class(*self)._replace(**changes), self._dk, self._dk_rows)

    def reduce(self: Any) -> Any:
        carried = self._dk
        late = isinstance(carried, CarriedHistories) and any(h.under_way() for h in carried.histories.values())
        return _copied, (state_class, tuple(self), late or carried == LATE_COPY)  # histories are not data

    members = {
        "_replace": replace,
        "__reduce__": reduce,
        "__reduce_ex__": lambda self, _: reduce(self),
        "_dk_plain": state_class,
        "_dk": None,
        "_dk_rows": None,
        # torch rebuilds every namedtuple from its values alone, registered or not, and knows one by this method being
        # callable on the class; as a property it still works on every state.
        "_asdict": property(lambda self: lambda: state_class(*self)._asdict()),
    }
    cls = type(state_class.__name__, (state_class,), members)
    _pytree.register_pytree_node(cls, _flatten, _unflatten)
    return cls


def _flatten(state: Any) -> tuple[list[Any], Any]:
    leaf = _first_leaf(state)
    if not isinstance(state._dk, CarriedHistories) or leaf is None:
        return list(state), (type(state)._dk_plain, state._dk, False)
    rows = state._dk_rows if state._dk_rows is not None else Rows(number(leaf))
    return [*state, rows], (type(state)._dk_plain, state._dk, True)


def _unflatten(values: Any, context: Any) -> Any:
    plain, carried, has_rows = context
    values = list(values)
    rows = values.pop() if has_rows else None
    return with_histories(plain(*values), carried, rows if isinstance(rows, Rows) else None)


def _copied(state_class: type, values: tuple[Any, ...], late: bool = False) -> Any:
    return with_histories(state_class(*values), LATE_COPY if late else COPY)


@eager  # dynamo would look through the cache and make a class, and a pytree node, at every step
def with_histories(state: tuple[Any, ...], carried: CarriedHistories | str, rows: Rows | None = None) -> Any:
    """Return ``state`` with histories under its attribute ``_dk``, a name that no field of a NamedTuple can have."""
    out = carrying_class(getattr(type(state), "_dk_plain", type(state)))(*state)
    out._dk = carried
    if rows is not None:
        out._dk_rows = rows
    return out


@eager  # versions are looked at
def carry(state: Any, histories: Histories, owner: Any) -> Any:
    """Return the state of a step with the histories of that step, and what is needed to see what becomes of it."""
    return with_histories(state, CarriedHistories(histories, state, owner))


class KnowsStates(Protocol):
    """The part of an adapter that carried states ask."""

    def begins(self, state: Any) -> bool:
        """Tell whether a state is one that nobody stepped yet."""


class _Running(threading.local):
    histories: Histories | None = None


@dataclasses.dataclass
class CarriedRun:
    """Beside a neuron whose histories ride in its state: those of the step that runs now, in this thread.

    Args:
        adapter: who tells a state that begins a sequence from a running one.
    """

    adapter: KnowsStates
    _local: _Running = dataclasses.field(default_factory=_Running, compare=False, repr=False)

    @property
    def running(self) -> Histories | None:
        """Histories by slot, None between steps."""
        return self._local.histories

    @running.setter
    def running(self, histories: Histories | None) -> None:
        self._local.histories = histories

    def __reduce__(self) -> tuple[Any, ...]:
        return CarriedRun, (self.adapter,)


def take_histories(where: str, state: Any, slots: list[str], run: CarriedRun) -> Histories:
    """Take the histories out of a state; one that nobody stepped yet begins a new sequence.

    Args:
        where: site name, for messages.
        state: what the caller passes to the neuron.
        slots: the neuron's delayed connections.
        run: the neuron's own record.

    Raises:
        HistoryError: the state was rebuilt or copied without its history, is another cell's, was stepped already, or
            its rows changed in a way that nobody can read.
    """
    carried = getattr(state, "_dk", None)
    if not isinstance(carried, CarriedHistories):
        if carried == LATE_COPY or (carried == COPY and not run.adapter.begins(state)):
            raise HistoryError(where, COPY, "the state that the step before returned", KEEP)
        if not run.adapter.begins(state):
            found = f"a running {type(state).__name__} without its delay history"
            raise HistoryError(where, found, "the state that the step before returned", KEEP)
        return {slot: History(where) for slot in slots}
    if carried.owner is not None and carried.owner is not run:
        found = "the state of another cell, or of this one before it was unwrapped, or of which it is a copy"
        raise HistoryError(where, found, "the state that this cell returned", KEEP)
    histories: Histories = carried.histories
    if any(histories[slot].age != age for slot, age in carried.ages.items()):
        raise HistoryError(
            where, "a state that was stepped already", "each state used once", "begin each sequence with None"
        )
    left = carried.left
    if state._dk_rows is not None or any(a is not b for a, b in zip(state, left.state, strict=True)) or left.written():
        _follow_rows(where, state, carried)
    if carried.had_graph and not _has_graph(state):
        for history in histories.values():
            history.detach()
    return histories


def _follow_rows(where: str, state: Any, carried: CarriedHistories) -> None:
    left, after = carried.left, tensors_of(without_histories(state))
    before, now = (next((leaf for leaf in some if leaf.dim() > 0), None) for some in (left.tensors, after))
    if before is None or now is None:
        return
    rows: Any = "edit" if state._dk_rows is None else moved(state._dk_rows.ids, len(before))
    if rows == "edit" or rows == list(range(len(before))):  # a tree_map over tensors alone leaves the numbers out
        rows = read_values(left, after)
    move_rows(where, carried.histories.values(), rows, len(before), len(now), now.device)


def move_rows(where: str, histories: Any, rows: Any, before: int, now: int, device: torch.device) -> None:
    """Let histories follow the rows of a state; None where nobody can tell which row went where.

    Raises:
        HistoryError: nobody can tell, and spikes are under way.
    """
    late = any(h.under_way() for h in histories)
    if late and (rows is None or len(rows) != now):
        raise HistoryError(
            where,
            "a state whose rows were changed while spikes are under way, in a way that delaykit cannot follow",
            "rows selected, permuted or set to zero, each at most once, in all parts of the state alike",
            "use torch.utils._pytree.tree_map(lambda v: v[rows], state); begin rows anew by setting them to zero",
        )
    if rows is None or len(rows) != now:
        rows = [None] * now
    if rows != list(range(before)):
        for history in histories:
            history.select(rows, device)


def without_histories(state: Any) -> Any:
    """Return the state without its histories, as the library made it."""
    base = getattr(type(state), "_dk_plain", None)
    return state if base is None else base(*state)


def _first_leaf(state: Any) -> Tensor | None:
    return next((leaf for leaf in tensors_of(without_histories(state)) if leaf.dim() > 0), None)


def _has_graph(state: Any) -> bool:
    return any(leaf.requires_grad for leaf in tensors_of(state))
