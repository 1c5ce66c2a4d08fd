"""Histories: what a connection remembers, as a plain object and not a buffer.

A :class:`History` is in no state dict, DDP does not broadcast it, and a copy or a pickle of it is empty. The
:class:`~delaykit.attaching.clocks.Clock` of its connection tells when it forgets.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from delaykit.attaching.batch.refusals import one_of_several, other_rows, out_of_step, unfinished, weight_changed
from delaykit.attaching.batch.rows import selected
from delaykit.attaching.batch.streams import Stream
from delaykit.attaching.history import lines
from delaykit.attaching.history.beats import Beat
from delaykit.attaching.history.beginnings import Ends
from delaykit.attaching.history.parameters import ReadParameters
from delaykit.errors import HistoryError
from delaykit.functional.draws import Draws
from delaykit.synapse import Engine, Product, Synapse

IN_A_COPY = "in a copy of the model"


class Moment(NamedTuple):
    """When a call happens: a history is cleared where ``sequence`` is new, and cut where ``segment`` is new.

    ``call``: under which call of the model, counted from 1; 0 where nobody asks. ``again``: the one before has failed,
    and nobody knows where.
    """

    sequence: Any = None
    segment: Any = None
    again: bool = False
    call: int = 0


class History:
    """The past of one connection: an engine (this segment's parameters) and its streams.

    Args:
        where: site name, for messages.

    Attributes:
        beats: the neurons behind it, against whose steps its calls are counted.
        lost: whether something was under way when the last root call ended, which nobody asked for.
        ahead: whether a run ahead of this root call leaves something under way.
        asked: whether the user chose that delays begin anew with every call.
        gap: the sequence whose spikes under way went without a reset, and where; None: there is none.
        ends: of a connection that holds a whole sequence a call: what calls left under way.
        neurons: those that it leads to.
        leader: the one whose resets empty it.
        rows: where the rows of its input are among those of its neurons: "same", "grouped" or "moved".
    """

    def __init__(self, where: str = "connection") -> None:
        self.where = where
        self.beats: list[Beat] = []
        self.lost: bool | Tensor = False
        self.asked = False
        self.ends: Ends | None = None
        self.neurons: list[Any] = []
        self.leader: Any = None
        self.rows = "same"
        self._call = 0  # in which its age was _age_before when it was first stepped
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        if self.ends is not None:
            self.ends.clear()
        self.engine: Engine | None = None
        self.streams: list[Stream | None] = []
        self.moment: Moment | None = None
        self.age = self._cut_at = self._age_before = 0
        self.parameters: Any = None  # what the engine has read of them
        self.gap: tuple[Any, str] | None = None
        self.owes: object = None  # a mark of a beginning that not all neurons behind it have shared yet
        self.left_by = ""  # one of them that began anew, while the leader has not
        self.ahead: bool | Tensor = False
        self.draws: Draws = {}  # outlives cuts
        self.pieces: list[Any] = []  # one a stream: inputs still under way, where whole sequences come in pieces
        self._told: int | None = None  # how old it was when the caller last said which of its own rows begin anew
        self.each = 1  # lines a row of the batch: patches of (batch, patch, channel)
        self.resized: int | None = None  # the batch before, until the neuron confirms that its state was cut so
        self.last_output: Tensor | None = None  # of the neuron, where the loop is delaykit's own
        self._last_version = 0
        self._last_step: tuple[int, Tensor] | None = None

    def detach(self) -> None:
        """Keep the remembered spikes, forget their graph; parameters are read anew."""
        self.engine, self._cut_at = None, self.age
        if self.last_output is not None:
            self.last_output = self.last_output.detach()
        self.pieces = [None if piece is None else piece.detach() for piece in self.pieces]
        for stream in self.streams:
            if stream is not None:
                stream.detach()

    def forsake(self, by: str) -> None:
        """Forget everything; a sequence that goes on nevertheless, while something was under way, is refused."""
        gap = self.gap_behind(by)
        self.clear()
        self.gap = gap

    def gap_behind(self, by: str) -> tuple[Any, str] | None:
        """Return what is missing where this sequence goes on without what is under way; None: nothing is."""
        if self.gap is not None or self.moment is None or not self.under_way():
            return self.gap
        return self.moment.sequence, by

    def ends_early(self) -> bool:
        """Tell whether anything is under way that nobody hears of if this history ends now."""
        whole = self.ends is not None and any(map(bool, self.ends.ever))
        return self.gap is not None or whole or bool(self.lost) or self.under_way()

    def close(self, failed: bool = False) -> None:
        """End of a root call: forget, but know whether something was under way; one that failed may be tried again."""
        late = not self.asked and (self.under_way() or self.ahead)
        self.lost = late or (failed and self.lost)
        self.clear()

    def enter(self, moment: Moment) -> None:
        """Compare the moment of this call with the last one's.

        Raises:
            HistoryError: a sequence goes on that has lost its spikes under way other than by a reset, or behind a call
                that failed.
        """
        if self.gap is not None and self.gap[0] == moment.sequence:
            raise HistoryError(
                self.where,
                f"a sequence that goes on {self.gap[1]}, where its spikes under way did not come along",
                "a sequence that begins there",
                "reset the model first (dk.reset(net), or its neurons' own reset), or go on as before",
            )
        if moment.again and self.age > self._age_before and self.under_way():
            raise unfinished(None, self.where)
        if self.moment is None:
            owes = self.owes
            self.clear()
            self.owes = owes
        elif self.moment.sequence != moment.sequence:
            within = not isinstance(moment.sequence, tuple) or self.moment.sequence[0] == moment.sequence[0]
            self.clear_with(self.leader if within else None)
        elif self.left_by and self.under_way():
            raise one_of_several(self.where, self.left_by, self.leader.path)
        elif self.moment.segment != moment.segment:
            self.detach()
        if self._call != moment.call:
            self._call, self._age_before = moment.call, self.age
        self.moment = moment

    def leads_several(self) -> bool:
        """Tell whether it leads to other neurons beside the one whose resets empty it."""
        return len(self.neurons) > 1 and self.leader in self.neurons

    def clear_with(self, leader: Any) -> None:
        """Forget everything with the neuron that it follows; others that it leads to have to begin anew, too.

        Args:
            leader: that neuron; None where all begin anew.
        """
        late = leader is not None and self.leads_several() and self.under_way()
        self.clear()
        if late:
            self._owe(leader)

    def clear_rows_with(self, leader: Any, rows: Tensor) -> None:
        """Forget the past of some rows with the neuron that it follows, and so have the others to."""
        if self._told == self.age:  # the caller has said for its own rows what this says for the neuron's
            return
        late = self.leads_several() and self.rows_under_way(rows)
        self.clear_rows(rows, by_membrane=True)
        if late:
            self._owe(leader, rows)

    def _owe(self, leader: Any, rows: Tensor | None = None) -> None:
        self.owes = object()
        for neuron in self.neurons:
            if neuron is not leader:
                neuron.owed.append((self, self.owes, rows))

    def rows_under_way(self, rows: Tensor, before_last: bool = False) -> bool:
        """Tell whether something may be under way in one of these rows, a mask (batch,)."""
        if self.rows == "moved":
            return self.under_way(before_last)
        return lines.rows_under_way(self.streams, rows, self._last_step_at() if before_last else None)

    def late_in(self, rows: Tensor | None) -> bool:
        """Tell whether anything is under way from before the last step, in these rows or in any."""
        if rows is None:
            return self.under_way(True)
        return self._told != self._last_step_at() and self.rows_under_way(rows, True)

    def under_way(self, before_last: bool = False) -> bool:
        """Tell whether something may be under way, the last step left out on demand."""
        late = self.in_line(before_last)
        if not late and self.last_output is not None and not before_last:
            late = bool(self.last_output.any())  # on its way back to the neuron that put it out
        return late or any(piece is not None and piece.under_way() for piece in self.pieces)

    def in_line(self, before_last: bool = False) -> bool:
        """Tell whether something may be in a line, and not only on its way from one step to the next."""
        before = self._last_step_at() if before_last else None
        return any(stream is not None and not stream.silent(before) for stream in self.streams)

    def _last_step_at(self) -> int:
        """Count the calls before the last step, which is one call of each stream."""
        return self.age - len(self.streams)

    def recorded(self) -> bool:
        """Tell whether what is remembered has a graph, which a cut would take away."""
        return any(stream is not None and stream.recorded() for stream in self.streams)

    def graph_under_way(self) -> bool:
        """Tell whether a gradient of later steps would reach one of those before."""
        return any(stream is not None and stream.graph_under_way() for stream in self.streams)

    def reads_graph(self) -> bool:
        """Tell whether the newest step has read inputs of earlier ones, and recorded it."""
        return torch.is_grad_enabled() and self.holds_graph(2)

    def holds_graph(self, steps: int) -> bool:
        """Tell whether it holds the graph of inputs, after at least so many steps since it was last cut."""
        return self.age - self._cut_at >= steps and self.graph_under_way()

    def step(self, synapse: Synapse, product: Product, spikes: Tensor, streams: int = 1) -> Tensor:
        """Run one step ``(batch, pre, *space) -> (batch, post, *space)`` of the stream whose turn it is."""
        engine = self.engine
        if engine is None or engine.stale(product.weight_of(engine), product.bias) or self.parameters.changed():
            self._read(synapse, product)
        elif self.parameters.of_inference and not torch.is_inference_mode_enabled():
            self._read(synapse, product)  # what was made of them leads nowhere, and what learns has to be reached
        assert self.engine is not None
        if len(self.streams) != streams:
            self.streams = [None] * streams
        turn = self.age % streams
        if turn == 0 and self.beats:
            self._count()
        stream, seen = self.streams[turn], (spikes.shape, spikes.dtype, spikes.device)
        if stream is None or stream.seen != seen:
            kind = (spikes.shape[1:], spikes.dtype, spikes.device)
            if stream is None or stream.kind != kind or stream.batch != len(spikes):
                stream = self.streams[turn] = self._fitting(self.engine, stream, spikes, kind)
            stream.seen = seen
        self.age += 1
        return stream.step(self.engine, spikes)

    def _read(self, synapse: Synapse, product: Product) -> None:
        """Begin a segment: read the parameters, and go on with what is under way."""
        changed, engine = self.engine is not None, synapse.engine(product, self.draws)
        if changed and torch.is_grad_enabled() and self.graph_under_way():
            raise weight_changed(self.where)
        self.engine, self.parameters = engine, ReadParameters(synapse, product.weight, product.bias)
        for stream in self.streams:
            if stream is not None:
                stream.rebind(engine)

    def _count(self) -> None:
        """Compare the steps of the neurons behind with the calls of this connection."""
        for beat in self.beats:
            gone, beat.mark = beat.neuron.steps - beat.mark, beat.neuron.steps
            if self.age and gone != beat.each and self.under_way():
                raise self.out_of_step(beat, gone)

    def out_of_step(self, beat: Beat, found: int) -> HistoryError:
        """Say that a neuron took other steps than this connection's calls."""
        if beat.neuron.unfinished():
            return unfinished(beat.path, self.where)
        return out_of_step(self.where, beat.path, found, beat.each)

    def _fitting(self, engine: Engine, stream: Stream | None, spikes: Tensor, kind: Any) -> Stream:
        """Return the stream for a batch of another size: rows leave at the end, or come there."""
        if stream is None or stream.silent():
            lines.afford(self.where, engine.holds(), spikes)
            return Stream(len(spikes), kind, self.age)
        if stream.kind != kind or not self.beats or self.rows == "moved":
            raise lines.another_input(self.where, stream, spikes, kind)
        self.resized = stream.batch if self.resized is None else self.resized
        stream.select(lines.first(stream.batch, len(spikes)), spikes.device, self.age)
        return stream

    @property
    def lines(self) -> int | None:
        """How many rows its inputs had, all dimensions before the channel taken together; None before the first."""
        return next((stream.batch for stream in self.streams if stream is not None), None)

    def resize(self, before: int, batch: int, device: torch.device) -> None:
        """Drop rows from the end, or let new ones come there, in all streams: the state was cut so.

        Args:
            before: number of rows of the state.
            batch: that of now.
            device: where the rows are.
        """
        if self.resized is None:  # else the input came cut, and its line with it
            self.select(lines.first(before, batch), device, before)

    def select(self, rows: Sequence[int | None], device: torch.device, of: int) -> None:
        """Let row k go on as ``rows[k]`` of ``of`` rows has been, in all streams; None begins with nothing under way.

        A row of a state (batch, patch, channel) stands for as many lines as it has patches.
        """
        if self.rows == "moved":
            self._refuse_rows(self._changed(of))
            return  # nothing is under way, in whichever row
        lines.refuse_pieces(self.where, self.pieces)
        lines.select(self.where, self.streams, rows, device, of, self.age)
        if self.last_output is not None:
            self.last_output = selected(self.last_output, rows)
            self._last_version = self.last_output._version

    def fit_mask(self, rows: Tensor, by_membrane: bool = False) -> None:
        """Raise where a mask is not one truth value a row of the neuron, or of the input where it cannot be the former.

        Raises:
            HistoryError: it is not, or the rows of the neuron are elsewhere in the input, and spikes are under way.
        """
        own, told = self.lines == len(rows) * self.each, self._told == self.age
        heard = {n.rows() for n in (*self.neurons, self.leader) if n is not None} - {None}
        if self.rows == "moved":
            if not told and not (own and heard and len(rows) not in heard):
                self._refuse_rows(self._changed(len(rows)) if by_membrane else f"rows= a mask of {len(rows)}")
        elif self.rows == "grouped" and not own and len(rows) in heard and not (self.lines or 0) % len(rows):
            return
        elif not own and by_membrane and self.under_way():
            self._refuse_rows(self._changed(len(rows)))
        else:
            lines.fit_mask(self.where, self.streams, rows, self.each)

    def _refuse_rows(self, what: str) -> None:
        if self.under_way():
            raise other_rows(self.where, what, (self.lines or 0) // self.each)

    def _changed(self, rows: int) -> str:
        path = next((n.path for n in (self.leader, *self.neurons) if n is not None), None)
        return f"a change of some of the {rows} rows of " + ("the neuron" if path is None else f"neuron {path!r}")

    def clear_rows(self, rows: Tensor, by_membrane: bool = False) -> None:
        """Forget the past of some rows; ``rows`` is a mask (batch,), of those of the neuron."""
        self.fit_mask(rows, by_membrane)
        if self.rows == "moved":
            if self._told != self.age and self.under_way():
                self.clear_own_rows(rows)
        elif any(gone := rows.tolist()):
            self.select([None if out else row for row, out in enumerate(gone)], rows.device, len(gone))

    def clear_own_rows(self, rows: Tensor) -> None:
        """Forget the past of some rows of the input; where they are others than the neurons', these are told, too.

        Args:
            rows: mask of the first dimension of the input.
        """
        lines.refuse_pieces(self.where, self.pieces)
        lines.fit_mask(self.where, self.streams, rows, self.each)
        gone = rows.tolist()
        if any(gone):
            some = [None if out else row for row, out in enumerate(gone)]
            lines.select(self.where, self.streams, some, rows.device, len(gone), self.age)
        if self.rows == "moved":
            self._told = self.age

    def put_back(self, output: Tensor) -> None:
        """Keep a neuron's output, which comes back as its input; the caller may write over it."""
        self.last_output = output if output.requires_grad else output.clone()
        self._last_version = 0 if output.is_inference() else self.last_output._version

    def take_back(self) -> Tensor | None:
        """Return the neuron's last output, None at the start.

        Raises:
            HistoryError: it was written to, with its graph.
        """
        last = self.last_output
        if last is not None and not last.is_inference() and last._version != self._last_version:
            found = "spikes that were written to after the neuron returned them"
            raise HistoryError(self.where, found, "spikes as the neuron made them", "change a copy: spikes.clone()")
        return last

    def once_a_step(self, neuron_step: int, run: Any) -> Tensor:
        """Push once per neuron step: a neuron that calls its recurrent connection twice gets the same current twice."""
        if self._last_step is None or self._last_step[0] != neuron_step:
            self._last_step = (neuron_step, run())
        return self._last_step[1]

    def __deepcopy__(self, memo: dict[int, Any]) -> History:
        twin = memo.get(id(self))
        if twin is None:
            twin = memo[id(self)] = History(self.where)
            parts = self.beats, self.ends, self.neurons, self.leader
            twin.beats, twin.ends, twin.neurons, twin.leader = copy.deepcopy(parts, memo)
            twin.__dict__ |= self._of_a_copy()
        return twin

    def __reduce__(self) -> tuple[Any, ...]:
        parts = {"beats": self.beats, "ends": self.ends, "neurons": self.neurons, "leader": self.leader}
        return History, (self.where,), parts | self._of_a_copy()

    def _of_a_copy(self) -> dict[str, Any]:
        """Return what a copy knows: nothing of the past but that there was one. Neurons count their resets anew."""
        gap = self.gap_behind(IN_A_COPY)
        gap = None if gap is None else (None if gap[0] is None else 0, IN_A_COPY)
        return {"asked": self.asked, "rows": self.rows, "gap": gap}
