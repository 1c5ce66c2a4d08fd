"""A connection that is fed whole sequences, maybe in pieces: what one piece leaves for the next.

Where delays end, the inputs that are still under way are put before the next piece. Where a current lingers without
end, or was made with another weight (dendritic), later pieces go step by step, so that each costs as much as its own
steps. The first runs at once, as most sequences have one piece only: what the steps need is made of its inputs when a
second one comes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from delaykit.attaching.batch.streams import Stream
from delaykit.attaching.carried_states import COPY
from delaykit.attaching.connection.calls import over_time
from delaykit.attaching.histories import History, weight_changed
from delaykit.errors import HistoryError
from delaykit.functional.engine import Engine, computes_with, frozen
from delaykit.interfaces import PointDelay
from delaykit.synapse import Product, Synapse


class CarriedTail:
    """The state of a connection between two pieces of a sequence.

    Args:
        kind: what the pieces have in common: shape but for time, dtype, device.
        inputs: those that later steps may read.
        forgot: whether earlier inputs are gone.
        made_by: where steps may go on: what the piece was run with, which may have changed by the next.
        lingers: whether only steps can go on.
        cut: whether no gradient reaches back into it.
        history: what remembers the past from the second piece on.
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
    ) -> None:
        self.kind, self.inputs, self.forgot, self.cut = kind, inputs, forgot, cut
        self.made_by, self.lingers = made_by, lingers
        self.history, self.age = history, 0 if history is None else history.age
        self.drives: Any = None  # a container's own: the place and the state of the neuron behind it

    def detach(self) -> CarriedTail:
        """Cut the graph and keep what is under way."""
        if self.history is not None:
            self.history.detach()
            return self
        assert self.inputs is not None
        return CarriedTail(self.kind, self.inputs.detach(), self.forgot, self.made_by, self.lingers, True)

    def __deepcopy__(self, memo: dict[int, Any]) -> CarriedTail | str:
        if self.history is not None:
            return COPY
        inputs = None if self.inputs is None else self.inputs.detach().clone()
        return CarriedTail(self.kind, inputs, self.forgot, self.made_by, self.lingers, True)

    def __reduce__(self) -> tuple[Any, ...]:
        return str, (COPY,)

    def goes_by_steps(self, product: Product) -> bool:
        """Tell whether the next piece cannot run at once behind the inputs of this one."""
        if self.history is not None or self.lingers:
            return True
        return self.made_by is not None and self.made_by.stale(product.weight, product.bias)

    def under_way(self) -> bool:
        """Tell whether a later step may hear of an input."""
        if self.history is not None:
            return self.history.under_way()
        return self.inputs is not None and bool(self.inputs.any())


def carried_sequence(
    synapse: Synapse, where: str, product: Product, input: Tensor, time_dim: int, state: Any
) -> tuple[Tensor, CarriedTail]:
    """Run a piece of a sequence behind the piece before."""
    if state is not None and not isinstance(state, CarriedTail):
        found = state if state == COPY else f"a state of type {type(state).__name__}"
        raise HistoryError(where, found, "None or the state of the piece before", "pass None first")
    if state is not None and state.goes_by_steps(product):
        return _step_on(synapse, where, product, input, time_dim, state)
    engines: list[Engine] = []

    def run(spikes: Tensor) -> Tensor:
        engines.append(synapse.engine(product))
        if state is not None:
            _check_remembers(where, engines[0], state, time_dim)
        return engines[0].sequence(spikes)

    before = None if state is None else state.inputs
    joined = input if before is None else torch.cat([before, input], time_dim)
    output = over_time(synapse, where, product, joined, time_dim, run)
    steps, length = input.shape[time_dim], joined.shape[time_dim]
    tail = _tail(synapse, engines[0], joined, time_dim, state)
    return output.narrow(time_dim, length - steps, steps), tail


def _tail(synapse: Synapse, engine: Engine, joined: Tensor, time_dim: int, state: CarriedTail | None) -> CarriedTail:
    length, kind, reach = joined.shape[time_dim], kind_of(joined, time_dim), engine.reach()
    longest, cut = None if synapse.delay is None else synapse.delay.longest(), not torch.is_grad_enabled()
    if synapse.heterogeneity is not None or (reach is None and longest is None):
        return CarriedTail(kind, joined.clone(), made_by=frozen(engine), lingers=True, cut=cut)
    keep = min(length, 2 * (reach or 0) if longest is None else longest)
    late = joined.narrow(time_dim, length - keep, keep)
    forgot = keep < length or (state is not None and state.forgot)
    dendritic = isinstance(synapse.delay, PointDelay) and synapse.delay.granularity == "dendritic"
    made_by = frozen(engine) if dendritic else None
    return CarriedTail(kind, late.clone(), forgot, made_by, cut=cut)  # the caller may write over the input


def _check_remembers(where: str, engine: Engine, state: CarriedTail, time_dim: int) -> None:
    reach = engine.reach()
    assert state.inputs is not None
    kept = state.inputs.shape[time_dim]
    if state.forgot and reach is not None and reach - 1 > kept:
        found = f"delays that reach back {reach - 1} steps into pieces of which {kept} steps were kept"
        fix = "give the component an upper bound (max_delay=, max_ms=), which is kept then, or pass state None"
        raise HistoryError(where, found, "delays that grow to less than twice their length between two pieces", fix)


def _step_on(
    synapse: Synapse, where: str, product: Product, input: Tensor, time_dim: int, state: CarriedTail
) -> tuple[Tensor, CarriedTail]:
    history = state.history
    if history is None:
        history = _replayed(synapse, where, product, time_dim, state)
    elif state.age != history.age:
        found, fix = "the state of a piece that was continued already", "start both sequences from None"
        raise HistoryError(where, found, "each state used once", fix)

    def run(spikes: Tensor) -> Tensor:
        outputs = [history.step(synapse, product, x) for x in spikes]
        return torch.stack(outputs) if outputs else spikes.new_empty(0, spikes.shape[1], synapse.site.post)

    output = over_time(synapse, where, product, input, time_dim, run)
    return output, CarriedTail(state.kind, history=history)


def _replayed(synapse: Synapse, where: str, product: Product, time_dim: int, state: CarriedTail) -> History:
    """Take the first piece step by step, with what it was run with, so that the next can go on."""
    assert state.made_by is not None and state.inputs is not None
    history, before, traced = History(where), state.made_by, torch.is_grad_enabled() and not state.cut

    def run(spikes: Tensor) -> Tensor:
        engine = synapse.engine(product) if traced else before
        if traced and not _equal(engine, before):
            raise weight_changed(where)
        stream = Stream(spikes.shape[1], (spikes.shape[2:], spikes.dtype, spikes.device))
        history.streams, history.age = [stream], len(spikes)
        history.engine = engine if traced else None
        for x in spikes:
            stream.step(engine, x)
        return spikes

    with torch.set_grad_enabled(traced):
        over_time(synapse, where, product, state.inputs, time_dim, run)
    if not traced:
        history.detach()
    return history


def _equal(one: Engine, other: Engine) -> bool:
    pairs = list(zip(computes_with(one), computes_with(other), strict=True))
    return all(a.shape == b.shape and torch.equal(a, b) for a, b in pairs)


def followed_sequence(
    synapse: Synapse, history: History, streams: int, product: Product, input: Tensor, time_dim: int
) -> Tensor:
    """Run a piece of a sequence that goes on as long as a neuron's state does.

    Raises:
        HistoryError: inputs of another batch, dtype or device than those that are under way.
    """
    if len(history.pieces) != streams:
        history.pieces = [None] * streams
    turn = history.age % streams
    before = history.pieces[turn]
    if before is not None and before.kind != kind_of(input, time_dim):
        if before.under_way():
            shape, dtype, device = before.kind
            found = f"a piece of {tuple(input.shape)}, {input.dtype} on {input.device}, while spikes of {shape} "
            found += f"without time, {dtype} on {device}, are under way"
            fix = "reset the model before another batch; convert or move it before a sequence, not within one"
            raise HistoryError(history.where, found, "one batch, dtype and device a sequence", fix)
        before = None
    output, history.pieces[turn] = carried_sequence(synapse, history.where, product, input, time_dim, before)
    history.age += 1
    return output


def kind_of(input: Tensor, time_dim: int) -> Any:
    """Say what an input must have in common with the piece before."""
    shape = list(input.shape)
    del shape[time_dim]
    return tuple(shape), input.dtype, input.device
