"""States that carry delay histories: a NamedTuple subclass that survives ``_replace`` and ``tree_map``."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils import _pytree

from delaykit.attaching.histories import History
from delaykit.errors import HistoryError

Histories = dict[str, History]


class CarriedHistories:
    """What rides in a state: the histories of a cell's connections, and when they were last stepped."""

    def __init__(self, histories: Histories, state: Any) -> None:
        self.histories = histories
        self.ages = {slot: h.age for slot, h in histories.items()}
        self.had_graph = _has_graph(state)


@functools.cache
def carrying_class(state_class: type) -> type:
    """Make the subclass of a state's NamedTuple that has histories."""

    def replace(self: Any, **changes: Any) -> Any:
        return with_histories(state_class(*self)._replace(**changes), self._dk)

    def reduce(self: Any) -> Any:
        return state_class, tuple(self)  # copies and pickles are plain states: histories are not data

    members = {
        "_replace": replace,
        "__reduce__": reduce,
        "__reduce_ex__": lambda self, _: reduce(self),
        "_dk_plain": state_class,
        # torch rebuilds every namedtuple from its values alone, registered or not, and knows one by this method being
        # callable on the class; as a property it still works on every state.
        "_asdict": property(lambda self: lambda: state_class(*self)._asdict()),
    }
    cls = type(state_class.__name__, (state_class,), members)
    _pytree.register_pytree_node(
        cls, lambda s: (list(s), s._dk), lambda values, carried: with_histories(state_class(*values), carried)
    )
    return cls


@torch.compiler.disable  # dynamo would look through the cache and make a class, and a pytree node, at every step
def with_histories(state: tuple[Any, ...], carried: CarriedHistories) -> Any:
    """Return ``state`` with histories under its attribute ``_dk``, a name that no field of a NamedTuple can have."""
    out = carrying_class(getattr(type(state), "_dk_plain", type(state)))(*state)
    out._dk = carried
    return out


class KnowsStates(Protocol):
    """The part of an adapter that carried states ask."""

    def begins(self, state: Any) -> bool:
        """Tell whether a state is one that nobody stepped yet."""


@dataclasses.dataclass
class CarriedRun:
    """Beside a neuron whose histories ride in its state: those of the step that runs now.

    Args:
        adapter: who tells a state that begins a sequence from a running one.
        running: histories by slot, None between steps.
    """

    adapter: KnowsStates
    running: Histories | None = None


def take_histories(where: str, state: Any, slots: list[str], adapter: KnowsStates) -> Histories:
    """Take the histories out of a state; one that nobody stepped yet begins a new sequence.

    Args:
        where: site name, for messages.
        state: what the caller passes to the neuron.
        slots: the neuron's delayed connections.
        adapter: who knows a state that begins a sequence.

    Raises:
        HistoryError: the state was rebuilt without its history, or was stepped already.
    """
    carried = getattr(state, "_dk", None)
    if carried is None:
        if not adapter.begins(state):
            raise HistoryError(
                where,
                f"a running {type(state).__name__} without its delay history",
                "the state that the step before returned",
                "change states with state._replace(...) or torch.utils._pytree.tree_map, or begin a sequence with None",
            )
        return {slot: History() for slot in slots}
    histories: Histories = carried.histories
    if any(histories[slot].age != age for slot, age in carried.ages.items()):
        raise HistoryError(
            where, "a state that was stepped already", "each state used once", "begin each sequence with None"
        )
    if carried.had_graph and not _has_graph(state):
        for history in histories.values():
            history.detach()
    return histories


def without_histories(state: Any) -> Any:
    """Return the state without its histories, as the library made it."""
    base = getattr(type(state), "_dk_plain", None)
    return state if base is None else base(*state)


def _has_graph(state: Any) -> bool:
    return any(isinstance(leaf, Tensor) and leaf.requires_grad for leaf in _pytree.tree_leaves(tuple(state)))
