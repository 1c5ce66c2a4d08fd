"""States that carry delay histories: a NamedTuple subclass that survives ``_replace`` and ``tree_map``."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree

from delaykit.attaching.histories import History
from delaykit.errors import HistoryError

Histories = dict[str, History]


class Passenger:
    """What rides in a carried state: the histories of a cell's connections, and when they were last stepped."""

    def __init__(self, histories: Histories, state: Any) -> None:
        self.histories = histories
        self.ages = {slot: h.age for slot, h in histories.items()}
        self.had_graph = _has_graph(state)


@functools.cache
def carrying_class(state_class: type) -> type:
    """Make the subclass of a state's NamedTuple that has a passenger."""

    def replace(self: Any, **changes: Any) -> Any:
        return carry(state_class(*self)._replace(**changes), self.passenger)

    def reduce(self: Any) -> Any:
        return state_class, tuple(self)  # copies and pickles are plain states: histories are not data

    members = {
        "_replace": replace,
        "__reduce__": reduce,
        "__reduce_ex__": lambda self, _: reduce(self),
        "_dk_base": state_class,
        # torch rebuilds every namedtuple from its values alone, registered or not, and knows one by this method being
        # callable on the class; as a property it still works on every state.
        "_asdict": property(lambda self: lambda: state_class(*self)._asdict()),
    }
    cls = type(state_class.__name__, (state_class,), members)
    _pytree.register_pytree_node(
        cls, lambda s: (list(s), s.passenger), lambda values, passenger: carry(state_class(*values), passenger)
    )
    return cls


@torch.compiler.disable  # dynamo would look through the cache and make a class, and a pytree node, at every step
def carry(state: tuple[Any, ...], passenger: Passenger) -> Any:
    """Return ``state`` with a passenger."""
    out = carrying_class(getattr(type(state), "_dk_base", type(state)))(*state)
    out.passenger = passenger
    return out


def board(where: str, state: Any, slots: list[str]) -> Histories:
    """Take the histories out of a state; None, or a state that nobody stepped yet, begins a new sequence.

    Raises:
        HistoryError: the state was rebuilt without its history, or was stepped already.
    """
    passenger = getattr(state, "passenger", None)
    if passenger is None:
        if state is not None and not _is_initial(state):
            raise HistoryError(
                where,
                f"a running {type(state).__name__} without its delay history",
                "the state that the step before returned",
                "change states with state._replace(...) or torch.utils._pytree.tree_map, or begin a sequence with None",
            )
        return {slot: History() for slot in slots}
    histories: Histories = passenger.histories
    if any(histories[slot].age != age for slot, age in passenger.ages.items()):
        raise HistoryError(
            where, "a state that was stepped already", "each state used once", "begin each sequence with None"
        )
    if passenger.had_graph and not _has_graph(state):
        for history in histories.values():
            history.detach()
    return histories


def plain(state: Any) -> Any:
    """Return the state without its passenger, as the library made it."""
    base = getattr(type(state), "_dk_base", None)
    return state if base is None else base(*state)


def _has_graph(state: Any) -> bool:
    return any(isinstance(leaf, Tensor) and leaf.requires_grad for leaf in _pytree.tree_leaves(tuple(state)))


def _is_initial(state: Any) -> bool:
    """Tell a freshly made state (no spikes, no current) from a running one."""
    fields = state._asdict() if hasattr(state, "_asdict") else {}
    nested = [v for v in fields.values() if hasattr(v, "_asdict")]
    quiet = [not bool(v.detach().any()) for k, v in fields.items() if k in ("z", "i") and isinstance(v, Tensor)]
    return all(quiet) and all(_is_initial(v) for v in nested)
