"""A connection that is fed whole sequences, maybe in pieces: what one piece leaves for the next.

Where delays end, the inputs that are still under way are put before the next piece; behind a convolution (dendritic) it
is what the product made of them. Where a current lingers without end, or was made with another weight matrix or
before a cut (dendritic), later pieces go step by step, so that each costs as much as its own steps. The first runs at
once, as most sequences have one piece only: what the steps need is made of its inputs when a second one comes.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import Tensor

from delaykit.attaching.batch.refusals import stepped_already, weight_changed
from delaykit.attaching.batch.streams import Stream
from delaykit.attaching.connection.calls import over_time
from delaykit.attaching.history.carried_states import COPY, JOINED_EXPECTED, JOINED_FIX
from delaykit.attaching.history.connection_history import History
from delaykit.attaching.history.connection_states import CarriedTail
from delaykit.attaching.history.parameters import ReadParameters
from delaykit.engines.dropout import DropoutEngine, DropoutTape, Mask
from delaykit.engines.linear import LineEngine
from delaykit.errors import HistoryError
from delaykit.functional.draws import Draws
from delaykit.functional.eager import eager
from delaykit.functional.engine_base import Engine, computes_with, frozen
from delaykit.functional.step_tape.segment import refuse_backward
from delaykit.interfaces import PointDelay
from delaykit.synapse import Product, Synapse

WITHOUT_END = sys.maxsize


@eager  # what is under way is looked at
def carried_sequence(
    synapse: Synapse, where: str, product: Product, input: Tensor, time_dim: int, state: Any
) -> tuple[Tensor, CarriedTail]:
    """Run a piece of a sequence behind the piece before."""
    if state is not None and not isinstance(state, CarriedTail):
        found = state if state == COPY else f"a state of type {type(state).__name__}"
        raise HistoryError(where, found, "None or the state of the piece before", "pass None first")
    if state is not None and state.joined:
        found = "the states of several runs in one, while spikes were under way"
        raise HistoryError(where, found, JOINED_EXPECTED, JOINED_FIX)
    if state is not None and state.changed:
        state = state.followed(where, state.went(), state.batch, len(state.ids))
    if state is not None and state.kind != kind_of(input, time_dim):
        shape, dtype, device = state.kind
        found = f"a piece of {tuple(input.shape)}, {input.dtype} on {input.device}, behind one of {shape} without "
        found += f"time, {dtype} on {device}"
        raise HistoryError(where, found, "one batch, dtype and device a sequence", "pass None first")
    if state is not None and state.lost and torch.is_grad_enabled():
        raise HistoryError(
            where, "spikes under way of a piece with gradients, behind a piece without",
            "gradients in all pieces that a spike is under way in, or a cut",
            "detach the state first (dk.detach(net) where the model keeps it), or begin with None",
        )  # fmt: skip
    if state is not None and state.goes_by_steps(product):
        return _step_on(synapse, where, product, input, time_dim, state)
    run = _Piece(synapse, where, product, time_dim, state)
    behind = run.before is not None and not run.makes
    joined = torch.cat([run.before, input], time_dim) if behind else input  # type: ignore[list-item]
    output = over_time(synapse, where, product, joined, time_dim, run)
    steps, length = input.shape[time_dim], joined.shape[time_dim]
    return output.narrow(time_dim, length - steps, steps), run.tail(joined, steps)


class _Piece:
    """One piece that runs at once: what :func:`over_time` calls, and the state that it leaves."""

    def __init__(
        self, synapse: Synapse, where: str, product: Product, time_dim: int, state: CarriedTail | None
    ) -> None:
        self.synapse, self.where, self.product, self.time_dim, self.state = synapse, where, product, time_dim, state
        self.before, self.mask = (None, None) if state is None else (state.inputs, state.mask)
        self.draws: Draws = {} if state is None or state.draws is None else state.draws
        delay, matrix = synapse.delay, product.weight is not None
        self.dendritic = isinstance(delay, PointDelay) and delay.granularity == "dendritic"
        self.makes = self.dendritic and not matrix and synapse.heterogeneity is None  # keeps what the product made

    def __call__(self, spikes: Tensor) -> Tensor:
        self.engine = engine = self.synapse.engine(self.product, self.draws)
        if self.state is not None:
            _check_remembers(self.where, engine, self.state, self.along)
        if isinstance(engine, DropoutEngine):
            self.mask, engine = self.mask or Mask(engine.delay), engine.engine
        if self.makes and isinstance(engine, LineEngine):
            output, self.made = engine.piece(spikes, self.before)
        else:
            output = engine.sequence(spikes)
        return output if self.mask is None else self.mask(output, 1)

    @property
    def along(self) -> int:
        """The dimension of time in what is kept."""
        return 0 if self.makes else self.time_dim

    def tail(self, joined: Tensor, steps: int) -> CarriedTail:
        """Keep what later pieces may need of the inputs, the last ``steps`` of which are this piece's."""
        engine, kind = self.engine, kind_of(joined, self.time_dim)
        kept = self.made if self.makes else joined
        length, longest, cut = kept.shape[self.along], _longest(self.synapse, engine), not torch.is_grad_enabled()
        alone = len(kind[0]) <= 1 + self.product.space
        rows = None if alone else 1 if self.along == 0 else 0
        if self.synapse.heterogeneity is not None or longest == WITHOUT_END:
            made_by = frozen(engine)
            keeps = kept.clone()
            return CarriedTail(kind, keeps, False, made_by, True, cut, None, self.mask, self.draws, rows)
        keep = min(length, longest)
        late = kept.narrow(self.along, length - keep, keep).clone()  # the caller may write over the input
        forgot = keep < length or (self.state is not None and self.state.forgot)
        made_by = frozen(engine) if self.dendritic and not self.makes else None
        lost = _lost(self.synapse, self.product, self.state, steps, longest)
        return CarriedTail(kind, late, forgot, made_by, False, cut, None, self.mask, self.draws, rows, lost)


def _longest(synapse: Synapse, engine: Engine) -> int:
    """Count the steps that an input may be under way, now or when delays have grown between two pieces."""
    longest, reach = None if synapse.delay is None else synapse.delay.longest(), engine.reach()
    if longest is not None:
        return longest
    return WITHOUT_END if reach is None else 2 * reach


def _lost(synapse: Synapse, product: Product, state: CarriedTail | None, steps: int, longest: int) -> int:
    """Count the steps for which spikes may be under way whose graph a piece of so many steps does not go on with.

    Their inputs had one, or, of currents that were made by then, what made them. What lingers is a constant behind
    steps without gradients anyway, as it is where the connection is stepped.
    """
    if state is None or torch.is_grad_enabled():
        return 0
    learned = (product.weight, *synapse.parameters()) if state.made_by is not None and not state.cut else ()
    had = state.recorded() or any(value is not None and value.requires_grad for value in learned)
    anew = had and not state.lost and synapse.heterogeneity is None
    return max(0, (longest if anew else state.lost) - steps)


def _check_remembers(where: str, engine: Engine, state: CarriedTail, along: int) -> None:
    reach = engine.reach()
    assert state.inputs is not None
    kept = state.inputs.shape[along]
    if state.forgot and reach is not None and reach - 1 > kept:
        found = f"delays that reach back {reach - 1} steps into pieces of which {kept} steps were kept"
        fix = "give the component an upper bound (max_delay=, max_ms=), which is kept then, or pass state None"
        raise HistoryError(where, found, "delays that grow to less than twice their length between two pieces", fix)


def _step_on(
    synapse: Synapse, where: str, product: Product, input: Tensor, time_dim: int, state: CarriedTail
) -> tuple[Tensor, CarriedTail]:
    history, lost = state.history, state.lost
    if history is None:
        assert state.made_by is not None
        lost = _lost(synapse, product, state, 0, _longest(synapse, state.made_by))
        history = _replayed(synapse, where, product, time_dim, state)
    elif state.age != history.age:
        refuse_backward(where)
        raise stepped_already(where, "the state of a piece that was continued already")

    def run(spikes: Tensor) -> Tensor:
        outputs = [history.step(synapse, product, x) for x in spikes]
        return torch.stack(outputs) if outputs else spikes.new_empty(0, spikes.shape[1], synapse.site.post)

    output = over_time(synapse, where, product, input, time_dim, run)
    lost = max(0, lost - input.shape[time_dim])
    return output, CarriedTail(state.kind, history=history, along=state.along, lost=lost)


def _replayed(synapse: Synapse, where: str, product: Product, time_dim: int, state: CarriedTail) -> History:
    """Take the first piece step by step, with what it was run with, so that the next can go on."""
    assert state.made_by is not None and state.inputs is not None
    history, before, traced = History(where), state.made_by, torch.is_grad_enabled() and not state.cut
    history.draws = {} if state.draws is None else state.draws

    def run(spikes: Tensor) -> Tensor:
        engine = synapse.engine(product, history.draws) if traced else before
        if traced and not _equal(engine, before):
            raise weight_changed(where)
        stream = Stream(spikes.shape[1], (spikes.shape[2:], spikes.dtype, spikes.device))
        history.streams, history.age = [stream], len(spikes)
        history.engine = engine if traced else None
        history.parameters = ReadParameters(synapse, product.weight, product.bias)
        tape = stream.parts[0].tape = engine.tape()
        if state.mask is not None and isinstance(tape, DropoutTape):
            tape.mask = state.mask
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
