"""``SequentialState``: the lines in front of a neuron go where the rows of that neuron's state go.

A caller who changes states with ``tree_map`` over tensors alone, or the neurons' entries of the list by hand, leaves
the entries of connections as they are. The container sees both: before a step, each line is compared with the neuron
behind it.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from delaykit.adapters.norse.cell import is_initial, resting
from delaykit.attaching.batch.refusals import other_rows
from delaykit.attaching.batch.states import LeftState, read_values
from delaykit.attaching.batch.tensors import tensors_in
from delaykit.attaching.connection.mixins import CarriedConnection
from delaykit.attaching.history.carried_states import move_rows, of_one_sample, refuse_joined, unclear_rows, was_cut
from delaykit.attaching.history.connection_states import AheadState, CarriedState, CarriedTail
from delaykit.attaching.history.dropped_entries import DroppedEntries, Left
from delaykit.attaching.retyping import Undo, give_class_, has_mixin, retype_
from delaykit.attaching.wiring import unwire_, wire_
from delaykit.functional.eager import eager

Carried = (CarriedState, CarriedTail)


class FollowedStates:
    """Mixin for a ``SequentialState`` with delayed connections, whose states the caller carries."""

    keeps_signature = True
    stateful_layers: list[bool]

    def forward(self, input_tensor: Any, state: Any = None) -> Any:
        """Run one call; lines follow what became of the neurons' states since the last."""
        given = {}
        if isinstance(state, list):
            given = _follow(self, state)
        output, state = super().forward(input_tensor, state)  # type: ignore[misc]
        _remember(self, state, given)
        return output, state

    def register_forward_state_hooks(self, forward_hook: Callable[..., Any]) -> None:
        """Register a hook for the neurons, as on the bare container: its connections had no state."""
        stateful: list[bool] = self.stateful_layers
        children = self.children()  # type: ignore[attr-defined]
        kept = [
            flag and not has_mixin(child, CarriedConnection) for flag, child in zip(stateful, children, strict=True)
        ]
        try:
            self.stateful_layers = kept
            super().register_forward_state_hooks(forward_hook)  # type: ignore[misc]
        finally:
            self.stateful_layers = stateful


def follow_states_(container: nn.Module) -> list[Undo]:
    """Let the lines in a ``SequentialState`` follow the states of its neurons; return how to take it back."""
    if has_mixin(container, FollowedStates):
        return []
    before = container.__class__
    retype_(container, FollowedStates)
    wire_(container).dropped = DroppedEntries(is_initial)
    return [Undo(_follow_no_more_, (container, before))]


def _follow_no_more_(container: nn.Module, before: type) -> None:
    give_class_(container, before)
    wire_(container).dropped = None
    unwire_(container)


@eager  # identities are looked at
def _remember(container: Any, state: list[Any], given: dict[int, Any]) -> None:
    behind: tuple[int, LeftState] | None = None
    entries: dict[int, Left] = {}
    for index in range(len(state) - 1, -1, -1):
        entry = state[index]
        if isinstance(entry, Carried):
            entry.drives = behind
            entries[index] = Left(entry, False, None if behind is None else behind[1].state)
        elif isinstance(entry, AheadState):
            entries[index] = Left(weakref.ref(entry), True, None)
        elif entry is not None:
            behind = index, LeftState(entry, _leaves(entry))
    if (dropped := container._dk.dropped) is not None:
        dropped.leave(given, entries)


@eager
def _follow(container: Any, state: list[Any]) -> dict[int, Any]:
    """Let lines follow the states of the neurons; return the connections' entries."""
    if any(entry is None for entry in state):
        _refuse_dropped(container, state)
    for index, entry in enumerate(state):
        if not isinstance(entry, Carried) or entry.drives is None:
            continue
        place, left = entry.drives
        now = state[place] if place < len(state) else None
        if left.untouched(now):
            continue
        if now is None:  # that neuron begins anew, and its line with it
            state[index] = None
        elif not entry.joined:
            where = f"{list(container._modules)[index]} of SequentialState"
            neuron = list(container._modules.values())[place]
            state[index] = _moved(where, entry, left, now, neuron)
    return {index: entry for index, entry in enumerate(state) if isinstance(entry, (*Carried, AheadState))}


def _refuse_dropped(container: Any, state: list[Any]) -> None:
    """Refuse a list that lacks the entry of a connection, where the neuron behind it, or before the last, has one."""
    dropped, children = container._dk.dropped, list(container._modules.items())
    lines = [has_mixin(child, CarriedConnection) for _, child in children]
    if dropped is None or len(state) != len(children):
        return
    neurons = [k for k, flag in enumerate(container.stateful_layers) if flag and not lines[k]]
    for index, entry in enumerate(state):
        if entry is not None or not lines[index] or not neurons or children[index][1]._dk.sites[""].off:
            continue
        beside = state[next((k for k in neurons if k > index), neurons[-1])]
        if beside is not None:
            dropped.check(f"{children[index][0]} of SequentialState", index, beside)


def _moved(
    where: str, entry: CarriedState | CarriedTail, left: LeftState, state: Any, neuron: nn.Module
) -> CarriedState | CarriedTail | None:
    now, before = _leaves(state), left.tensors
    if len(before) != len(now):
        return entry
    line = entry if entry.history is None else entry.history
    if was_cut(where, left, now, [line], getattr(state, "_dk_rows", None), entry.touched):
        entry = entry.detach()
    if all(a is b for a, b in zip(before, now, strict=True)) and not left.written():
        return entry
    if entry.changed:
        return _moved_again(where, entry, left, now, _fresh(neuron, state))
    if isinstance(entry, CarriedTail):
        alone = entry.alone
    else:
        alone = of_one_sample(before[0], [entry.history])
    after, batch = (1, 1) if alone else (len(now[0]), len(before[0]))
    rows = read_values(left, now, alone, _fresh(neuron, state))
    refuse_joined(where, rows, batch, after)
    if entry.owner is not None and entry.owner.timing.rows != "same" and rows != list(range(batch)):
        if entry.under_way() and (rows is None or any(row is not None for row in rows)):
            raise other_rows(where, "a change of some rows of a state", entry.batch, carried=True)
        return None
    if isinstance(entry, CarriedTail):
        return entry.followed(where, rows, batch, after)
    entry.batch = after
    move_rows(where, [entry.history], rows, batch, after, now[0].device)
    return entry


def _moved_again(
    where: str, entry: CarriedState | CarriedTail, left: LeftState, now: list[Tensor], rest: list[Tensor] | None
) -> CarriedState | CarriedTail:
    """Let an entry whose rows moved by themselves follow what was done to the neuron's alone besides."""
    went = entry.went()
    if went is None or entry.alone or all(row is None for row in went):
        return entry
    rows = read_values(left, now, rest=rest, went=went)
    if rows == list(range(len(went))):
        return entry
    if rows is not None:
        again: CarriedState | CarriedTail = entry.moved_again(rows)
        return again
    if entry.under_way():
        raise unclear_rows(where)
    return entry


def _fresh(neuron: nn.Module, state: Any) -> list[Tensor] | None:
    fresh = resting(neuron, state)
    return None if fresh is None else tensors_in(fresh)


def _leaves(state: Any) -> list[Tensor]:
    return [tensor for tensor in tensors_in(state) if tensor.ndim]
