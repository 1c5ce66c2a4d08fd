"""Histories: what a connection remembers, as a plain object and not a buffer.

A :class:`History` is in no state dict, DDP does not broadcast it, and a copy or a pickle of it is empty. The
:class:`~delaykit.attaching.clocks.Clock` of its connection tells when it forgets.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

from delaykit.errors import HistoryError
from delaykit.synapse import Engine, Product, Stepper, Synapse


class Moment(NamedTuple):
    """When a call happens: a history is cleared where ``sequence`` is new, and cut where ``segment`` is new."""

    sequence: Any = None
    segment: Any = None


class History:
    """The past of one connection: an engine (this segment's parameters) and one tape for each stream."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self.engine: Engine | None = None
        self.tapes: list[Stepper | None] = []
        self._kinds: list[Any] = []
        self.moment: Moment | None = None
        self.age = 0
        self.pieces: list[Any] = []  # one a stream: inputs still under way, where whole sequences come in pieces
        self.last_output: Tensor | None = None  # of the neuron, where the loop is delaykit's own
        self._last_step: tuple[int, Tensor] | None = None

    def detach(self) -> None:
        """Keep the remembered spikes, forget their graph; parameters are read anew."""
        self.engine = None
        self.last_output = None if self.last_output is None else self.last_output.detach()
        self.pieces = [None if piece is None else piece.detach() for piece in self.pieces]
        for tape in self.tapes:
            if tape is not None:
                tape.detach()

    def close(self, check: bool = True) -> None:
        """End of a root call: forget, and check that all streams were stepped equally often."""
        calls, streams = self.age, max(1, len(self.tapes))
        self.clear()
        if check and calls % streams:
            raise HistoryError(
                "net",
                f"a shared layer called {calls} times",
                f"a multiple of the {streams} streams seen when wrapping",
                "wrap again with an example that runs the streams as you do now",
            )  # fmt: skip

    def enter(self, moment: Moment) -> None:
        """Compare the moment of this call with the last one's."""
        if self.moment is None or self.moment.sequence != moment.sequence:
            self.clear()
        elif self.moment.segment != moment.segment:
            self.detach()
        self.moment = moment

    def step(self, synapse: Synapse, product: Product, spikes: Tensor, streams: int = 1) -> Tensor:
        """Run one step ``(batch, pre, *space) -> (batch, post, *space)`` of the stream whose turn it is."""
        if self.engine is None:
            self.engine = synapse.engine(product)
            for tape in self.tapes:
                if tape is not None:
                    self.engine.rebind(tape)
        if len(self.tapes) != streams:
            self.tapes, self._kinds = [None] * streams, [None] * streams
        turn, kind = self.age % streams, (spikes.shape, spikes.dtype, spikes.device)
        tape = self.tapes[turn]
        if tape is None or self._kinds[turn] != kind:  # another batch size, device or dtype is another sequence
            tape, self._kinds[turn] = self.engine.tape(), kind
            self.tapes[turn] = tape
        self.age += 1
        return self.engine.step(tape, spikes)

    def once_a_step(self, neuron_step: int, run: Any) -> Tensor:
        """Push once per neuron step: a neuron that calls its recurrent connection twice gets the same current twice."""
        if self._last_step is None or self._last_step[0] != neuron_step:
            self._last_step = (neuron_step, run())
        return self._last_step[1]

    def __deepcopy__(self, memo: dict[int, Any]) -> History:
        return memo.setdefault(id(self), History())

    def __reduce__(self) -> tuple[Any, ...]:
        return History, ()
