"""States that carry delay histories: a NamedTuple subclass that survives ``_replace`` and ``tree_map``.

Histories follow the rows of the state: what ``tree_map`` does to rows is done to their numbers
(:mod:`~delaykit.attaching.batch.rows`), and what is done by hand is read off the values, as with a membrane.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils import _pytree

from delaykit.attaching.batch.refusals import maybe_cut, stepped_already
from delaykit.attaching.batch.rows import Rows, moved, number
from delaykit.attaching.batch.states import LeftState, comes_cut, read_values, resting_of
from delaykit.attaching.batch.tensors import tensors_in
from delaykit.attaching.history.carried_run import KEEP, CarriedRun, Histories, any_under_way
from delaykit.attaching.history.connection_history import History
from delaykit.checks.answers import answer_of
from delaykit.errors import HistoryError, PluginError
from delaykit.functional.eager import eager
from delaykit.functional.step_tape.segment import refuse_backward

COPY = "a copy of a state: what is under way stays with the original"
LATE_COPY = COPY + ", and something was"  # it may be at rest, as one that begins a sequence is, and is none
BARE = "a state that went on without delays (dk.disabled), while spikes were under way"
JOINED_EXPECTED = "the rows of one run; new ones at rest"
JOINED_FIX = "run what belongs together as one batch from the beginning, or each run by itself"


class CarriedHistories:
    """What rides in a state: the histories of a cell's connections, and when they were last stepped.

    Args:
        histories: by slot.
        state: what the library returned.
        owner: the cell's own record: no other cell may go on from this state.

    Attributes:
        bare: whether the sequence went on without delays, while spikes were under way.
    """

    bare = False

    def __init__(self, histories: Histories, state: Any, owner: Any = None) -> None:
        self.histories, self.owner = histories, owner
        self.left = LeftState(state, tensors_in(state))
        self.ages = {slot: h.age for slot, h in histories.items()}

    def under_way(self) -> bool:
        """Tell whether a later step may hear of an input."""
        return any_under_way(self.histories)

    def recorded(self) -> bool:
        """Tell whether what is remembered has a graph, which a cut would take away."""
        return any(history.recorded() for history in self.histories.values())


@functools.cache
def carrying_class(state_class: Any) -> type:
    """Make the subclass of a state's NamedTuple that has histories; a TypeError refuses other states."""
    if not (issubclass(state_class, tuple) and hasattr(state_class, "_fields")):
        raise TypeError("a NamedTuple")

    def replace(self: Any, **changes: Any) -> Any:
        after = state_class(*self)._replace(**changes)
        return with_histories(after, self._dk, _rows_behind(state_class(*self), after, self._dk, self._dk_rows))

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


@dataclasses.dataclass(frozen=True)
class _Flattened:
    """What a tree knows of a state besides its leaves; two of one run are alike, whatever was done to their tensors.

    Args:
        plain: class of the state without histories.
        carried: what rides in it.
        rows: what stands for its rows among the leaves.
        before: the state that was flattened.
    """

    plain: type
    carried: Any
    rows: Rows | None = dataclasses.field(compare=False)
    before: Any = dataclasses.field(compare=False)


def _flatten(state: Any) -> tuple[list[Any], _Flattened]:
    leaf, plain = _first_leaf(state), without_histories(state)
    if not isinstance(state._dk, CarriedHistories) or leaf is None:
        return list(state), _Flattened(type(plain), state._dk, None, plain)
    rows = state._dk_rows if state._dk_rows is not None else Rows(number(leaf), run=state._dk)
    return [*state, rows], _Flattened(type(plain), state._dk, rows, plain)


def _unflatten(values: Any, context: _Flattened) -> Any:
    values = list(values)
    rows = values.pop() if context.rows is not None else None
    state = context.plain(*values)
    if rows is context.rows:  # a tree_map over tensors alone left it out
        rows = _rows_behind(context.before, state, context.carried, rows)
    return with_histories(state, context.carried, rows if isinstance(rows, Rows) else None)


def _rows_behind(before: Any, after: Any, carried: Any, rows: Rows | None) -> Rows | None:
    """Return what stands for the rows of a state whose tensors alone were replaced.

    Where they had a graph, it is seen at the next step whether it is gone. Where they had none, it is told here whether
    they were detached: what is done to them later hides it.
    """
    if not isinstance(carried, CarriedHistories) or carried.left.had_graph or not carried.recorded():
        return rows
    then, now = tensors_in(before), tensors_in(after)
    if len(then) != len(now) or any(a is b for a, b in zip(then, now, strict=True)):
        return rows
    cut, leaf = comes_cut(then, then, now), _first_leaf(before)
    if cut is False or leaf is None:
        return rows
    return (Rows(number(leaf), run=carried) if rows is None else rows).replaced(cut)


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
    try:
        owner.leave(histories, state)
        return with_histories(state, CarriedHistories(histories, state, owner))
    except (AttributeError, TypeError) as error:
        if isinstance(state, tuple) and hasattr(state, "_fields"):
            raise
        found, expected = f"a neuron whose state is a {type(state).__name__}", "a NamedTuple, where histories can ride"
        fix = "let find() report a recurrent_refusal for it"
        raise PluginError(answer_of(owner.adapter, "find"), found, expected, fix) from error


class HasGraph(Protocol):
    """A line that remembers a graph, maybe."""

    def recorded(self) -> bool:
        """Tell whether what is remembered has a graph, which a cut would take away."""

    def graph_under_way(self) -> bool:
        """Tell whether a gradient of later steps would reach one of those before."""


def take_histories(
    where: str, state: Any, slots: list[str], run: CarriedRun, off: bool = False, neuron: Any = None
) -> Histories:
    """Take the histories out of a state; one that nobody stepped yet begins a new sequence.

    Args:
        where: site name, for messages.
        state: what the caller passes to the neuron.
        slots: the neuron's delayed connections.
        run: the neuron's own record.
        off: whether its connections run without delays.
        neuron: who says what a fresh state is.

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
        known = carried == COPY  # of which nothing was under way
        run.begin(where, None if known else state, hasattr(type(state), "_dk_plain") and carried is None)
        return {slot: History(where) for slot in slots}
    if carried.owner is not None and carried.owner is not run:
        found = "the state of another cell, or of this one before it was unwrapped, or of which it is a copy"
        raise HistoryError(where, found, "the state that this cell returned", KEEP)
    if carried.bare and not off:
        raise HistoryError(where, BARE, "a sequence that begins there", "pass None first")
    histories: Histories = carried.histories
    if any(histories[slot].age != age for slot, age in carried.ages.items()):
        refuse_backward(where)
        raise stepped_already(where)
    left = carried.left
    if state._dk_rows is not None or any(a is not b for a, b in zip(state, left.state, strict=True)) or left.written():
        _follow_rows(where, state, carried, None if neuron is None else resting_of(run.adapter, neuron, state))
    if was_cut(where, left, tensors_in(without_histories(state)), histories.values(), state._dk_rows):
        for history in histories.values():
            history.detach()
    return histories


def was_cut(
    where: str,
    left: LeftState,
    now: list[Tensor],
    lines: Iterable[HasGraph],
    rows: Rows | None = None,
    copied: bool = False,
) -> bool:
    """Tell whether a state lost its graph, and its lines are to lose theirs.

    A state of a step that was not recorded has none to lose, while spikes under way may have that of the steps before.

    Args:
        where: site name, for messages.
        left: the state as it was left.
        now: its tensors of today.
        lines: what goes with it.
        rows: what a ``tree_map`` over all of it did to its rows.
        copied: whether other entries beside it were copied, and so maybe the state with them.

    Raises:
        HistoryError: nobody can tell, and it matters.
    """
    if left.had_graph:
        return all(b.is_leaf for b in now)
    if all(a is b for a, b in zip(left.tensors, now, strict=False)) or not any(h.recorded() for h in lines):
        return False
    if rows is not None and (rows.touched or rows.cut):
        cut = rows.cut or (None if rows.unsure else False)
    else:
        cut = comes_cut(left.tensors, left.values(), now, copied)
    if cut is None and any(h.graph_under_way() for h in lines):
        raise maybe_cut("a state", where)
    return bool(cut)


def neuron_after_bare_step(before: Any, after: Any, histories: Histories, owner: Any) -> Any:
    """Return a neuron's state behind a step without delays (``dk.disabled``), so that it is known what it lacks.

    Where nothing was in a line, the sequence goes on with its delays behind the block.

    Args:
        before: the state that the step was given.
        after: the one that the library returned.
        histories: those that go on from here.
        owner: the cell's own record.
    """
    carried, out = getattr(before, "_dk", None), carry(after, histories, owner)
    if isinstance(carried, CarriedHistories):
        out._dk.bare = carried.bare or any(h.in_line() for h in carried.histories.values())
    else:
        out._dk.bare = before is not None and not owner.adapter.begins(before)
    return out


def _follow_rows(where: str, state: Any, carried: CarriedHistories, resting: Any) -> None:
    left, after = carried.left, tensors_in(without_histories(state))
    before, now = (next((leaf for leaf in some if leaf.dim() > 0), None) for some in (left.tensors, after))
    if before is None or now is None:
        return
    histories, rest = carried.histories.values(), None if resting is None else tensors_in(resting)
    if state._dk_rows is not None and state._dk_rows.joined:
        raise HistoryError(where, "rows of several runs in one state", JOINED_EXPECTED, JOINED_FIX)
    if of_one_sample(before, histories):  # its one dimension counts neurons, and so do the numbers
        move_rows(where, histories, read_values(left, after, True, rest), 1, 1, now.device)
        return
    rows: Any = "edit" if state._dk_rows is None else moved(state._dk_rows.ids, len(before))
    if rows == "edit" or rows == list(range(len(before))):  # a tree_map over tensors alone leaves the numbers out
        rows = read_values(left, after, rest=rest)
        refuse_joined(where, rows, len(before), len(now))
    elif rows is not None and any(row is not None for row in rows):
        again = read_values(left, after, rest=rest, went=rows)
        rows = None if again is None else [None if row is None else rows[row] for row in again]
    move_rows(where, histories, rows, len(before), len(now), now.device)


def of_one_sample(state: Tensor, histories: Iterable[History]) -> bool:
    """Tell whether a state of one dimension is that of inputs without a batch."""
    return state.dim() == 1 and {history.lines for history in histories} - {None} == {1}


def refuse_joined(where: str, rows: Any, before: int, now: int) -> None:
    """Raise where rows came that are not at rest: they were another run's, whose lines did not come along."""
    if rows is None and now > before:
        raise HistoryError(
            where, f"a state of {now} rows behind one of {before}, with rows that nobody knows", JOINED_EXPECTED,
            JOINED_FIX,
        )  # fmt: skip


def unclear_rows(where: str) -> HistoryError:
    """Say that nobody can tell which row went where."""
    return HistoryError(
        where,
        "a state whose rows were changed while spikes are under way, in a way that delaykit cannot follow",
        "rows selected, permuted or set to zero, each at most once, in all parts of the state alike",
        "use torch.utils._pytree.tree_map(lambda v: v[rows], state); begin rows anew by setting them to zero",
    )


def move_rows(where: str, histories: Any, rows: Any, before: int, now: int, device: torch.device) -> None:
    """Let histories follow the rows of a state; None where nobody can tell which row went where.

    Raises:
        HistoryError: nobody can tell, and spikes are under way.
    """
    late = any(h.under_way() for h in histories)
    if late and (rows is None or len(rows) != now):
        raise unclear_rows(where)
    if rows is None or len(rows) != now:
        rows = [None] * now
    if rows != list(range(before)):
        for history in histories:
            history.select(rows, device, before)


def without_histories(state: Any) -> Any:
    """Return the state without its histories, as the library made it."""
    base = getattr(type(state), "_dk_plain", None)
    return state if base is None else base(*state)


def _first_leaf(state: Any) -> Tensor | None:
    return next((leaf for leaf in tensors_in(without_histories(state)) if leaf.dim() > 0), None)
