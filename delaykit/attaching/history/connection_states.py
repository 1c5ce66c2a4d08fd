"""The states of connections that a caller carries, as in Norse's ``SequentialState``: their histories go along.

A step leaves a :class:`CarriedState`, a piece of a sequence a :class:`CarriedTail`. What rides in the state of a neuron
is in :mod:`~delaykit.attaching.history.carried_states`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from delaykit.attaching.batch.refusals import other_rows, stepped_already
from delaykit.attaching.batch.rows import LineRows, selected
from delaykit.attaching.history.carried_states import COPY, JOINED_EXPECTED, JOINED_FIX, move_rows
from delaykit.attaching.history.connection_history import History
from delaykit.engines.dropout import Mask
from delaykit.errors import HistoryError
from delaykit.functional.draws import Draws
from delaykit.functional.engine_base import Engine
from delaykit.functional.step_tape.segment import refuse_backward
from delaykit.synapse import Product


class CarriedState(LineRows):
    """The state of a connection inside Norse's ``SequentialState``: its history, carried by the caller.

    It takes part in ``tree_map`` as a leaf: its rows go where those of the other states go. One state continues one
    sequence.
    """

    def __init__(self, history: History, like: Tensor) -> None:
        super().__init__(like.shape, like.dtype, like.device, history.lines == 1, history)
        self.history, self.age = history, history.age

    def under_way(self) -> bool:
        """Tell whether a later step may hear of an input."""
        return self.history.under_way()

    def detach(self) -> CarriedState:
        """Cut the graph (truncated BPTT) and keep the remembered spikes."""
        self.history.detach()
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> str:
        return COPY

    def __reduce__(self) -> tuple[Any, ...]:
        return str, (COPY,)


class Handed:
    """A state on its way around the hooks of a connection, which had none when they were written."""

    def __init__(self, state: Any) -> None:
        self.state = state


class AheadState:
    """The state of a delayed connection in a run ahead; behind its last step it is made when somebody asks for it.

    Nobody asks in most runs, and the steps cost what the run ahead has saved.
    """

    _make: Callable[[], Any] | None = None
    _made: Any = None

    def behind(self, make: Callable[[], Any]) -> None:
        """Say how the connection's own state is made."""
        self._make = make

    def resumed(self) -> Any:
        """Return the connection's own state; itself within the run, where nobody may go on from it."""
        if self._make is not None:
            self._made, self._make = self._make(), None
        return self if self._made is None else self._made

    @property
    def history(self) -> Any:
        """The line of the state that was made; None before: to look at it makes none."""
        return None if self._made is None else self._made.history

    def detach(self) -> Any:
        """Cut its graph; within the run, return another one: a cut graph is not what was run ahead."""
        own = self.resumed()
        return AheadState() if own is self else own.detach()

    def __getattr__(self, name: str) -> Any:
        own = None if name.startswith("__") else self.resumed()
        if own is None or own is self:
            raise AttributeError(name)
        return getattr(own, name)

    def __getitem__(self, rows: Any) -> Any:
        return self.resumed()[rows]

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return copy.deepcopy(self.resumed(), memo)


class CarriedTail(LineRows):
    """The state of a connection between two pieces of a sequence; its rows go where those of the other states go.

    Args:
        kind: what the pieces have in common: shape but for time, dtype, device.
        inputs: those that later steps may read, or, time first, what a convolution made of them.
        forgot: whether earlier inputs are gone.
        made_by: where steps may go on: what the piece was run with, which may have changed by the next.
        lingers: whether only steps can go on.
        cut: whether no gradient reaches back into it.
        history: what remembers the past from the second piece on.
        mask: the dropout of this sequence.
        draws: random numbers of this sequence.
        along: where the rows are in ``inputs``; None where there is no batch.
        lost: for how many steps spikes may be under way that lost their graph in a piece without gradients.
    """

    def __init__(
        self,
        kind: Any,
        inputs: Tensor | None = None,
        forgot: bool = False,
        made_by: Engine | None = None,
        lingers: bool = False,
        cut: bool = False,
        history: History | None = None,
        mask: Mask | None = None,
        draws: Draws | None = None,
        along: int | None = 1,
        lost: int = 0,
    ) -> None:
        shape, dtype, device = kind
        super().__init__(shape, dtype, device, along is None, inputs if history is None else history)
        self.kind, self.inputs, self.forgot, self.cut, self.lost = kind, inputs, forgot, cut, lost
        self.made_by, self.lingers, self.mask, self.draws, self.along = made_by, lingers, mask, draws, along
        self.history, self.age = history, 0 if history is None else history.age

    def detach(self) -> CarriedTail:
        """Cut the graph and keep what is under way."""
        if self.history is not None:
            self.history.detach()
            self.lost = 0
            return self
        assert self.inputs is not None
        tail: CarriedTail = self.twin(inputs=self.inputs.detach(), cut=True, lost=0)
        return tail

    def recorded(self) -> bool:
        """Tell whether what is remembered has a graph, which a cut would take away."""
        return self.inputs is not None and self.inputs.requires_grad

    graph_under_way = recorded

    def __deepcopy__(self, memo: dict[int, Any]) -> CarriedTail | str:
        if self.history is not None:
            return COPY
        inputs = None if self.inputs is None else self.inputs.detach().clone()
        tail: CarriedTail = self.twin(inputs=inputs, cut=True, lost=0)
        return tail

    def __reduce__(self) -> tuple[Any, ...]:
        return str, (COPY,)

    def goes_by_steps(self, product: Product) -> bool:
        """Tell whether the next piece cannot run at once behind the inputs of this one."""
        if self.history is not None or self.lingers:
            return True
        return self.made_by is not None and (self.cut or self.made_by.stale(product.weight, product.bias))

    def under_way(self) -> bool:
        """Tell whether a later step may hear of an input."""
        if self.history is not None:
            return self.history.under_way()
        return self.inputs is not None and bool(self.inputs.any())

    def masked(self) -> bool:
        """Tell whether some neurons of some rows have lost the connection for this sequence."""
        return self.mask is not None and self.mask.factors is not None

    def followed(self, where: str, rows: list[int | None] | None, before: int, now: int) -> CarriedTail:
        """Return what goes on from here where row k of ``now`` was ``rows[k]`` of those ``before``; None begins anew.

        Raises:
            HistoryError: nobody can tell, and spikes are under way; or a row goes on, or begins, under a dropout that
                was drawn for all rows.
        """
        if rows == list(range(before)) and now == before:
            return self
        if self.masked():
            raise HistoryError(
                where, "rows that change between two pieces of a sequence, which has one dropout",
                "the same rows in every piece", "begin all rows anew with None, or change rows without dropout",
            )  # fmt: skip
        shape, dtype, device = self.kind
        kind = (shape if self.along is None else (now, *shape[1:])), dtype, device
        tail: CarriedTail = self.twin(kind=kind, _ids=None)
        move_rows(where, [tail], rows, before, now, device)
        return tail

    def select(self, rows: Sequence[int | None], device: torch.device, of: int) -> None:
        """Let row k go on as ``rows[k]`` of ``of`` rows has been; None begins with nothing under way."""
        along, inputs = self.along, self.inputs
        if self.history is not None:
            self.history.select(rows, device, of)
        elif inputs is not None and along is None:
            self.inputs = inputs if rows == [0] else torch.zeros_like(inputs)
        elif inputs is not None and along is not None:
            self.inputs = selected(inputs, rows, along)


def carried_history(where: str, state: Any) -> History:
    """Take the history out of a carried state; None begins a new sequence."""
    if state is None:
        return History(where)
    if not isinstance(state, CarriedState):
        found = state if state == COPY else f"a state of type {type(state).__name__}"
        raise HistoryError(where, found, "None or the state of the step before", "pass None first")
    if state.joined:
        found = "the states of several runs in one, while spikes were under way"
        raise HistoryError(where, found, JOINED_EXPECTED, JOINED_FIX)
    if state.age != state.history.age:
        refuse_backward(where)
        raise stepped_already(where)
    if state.changed:
        move_rows(where, [state.history], state.went(), state.batch, len(state.ids), state.ids.device)
    return state.history


def in_rows(where: str, rows: str, state: Any) -> Any:
    """Return the state that a connection goes on from, None where its rows changed and nothing is under way.

    Args:
        where: site name, for messages.
        rows: whether the connection's rows are its neuron's, as its timing says.
        state: what the caller handed in.

    Raises:
        HistoryError: rows changed, its input has others, and spikes are under way.
    """
    if rows == "same" or not isinstance(state, LineRows) or not state.changed:
        return state
    if state.under_way() and bool(state.ids.any()):
        raise other_rows(where, "a change of some rows of a state", state.batch, carried=True)
    return None


def connection_after_bare_step(state: Any) -> Any:
    """Return the state behind a step without delays (``dk.disabled``): one with spikes under way lacks that step."""
    if not isinstance(state, (CarriedState, CarriedTail)) or state.bare or not state.under_way():
        return state
    return state.twin(bare=True)
