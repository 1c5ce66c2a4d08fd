"""Who watches a neuron: its steps, and its membrane from one to the next.

What a :class:`NeuronWatch` sees is told to the histories of its connections: resets and cuts are counted, and rows that
begin anew or leave are taken out at once. What nobody can tell is refused while spikes are under way.
"""

from __future__ import annotations

import weakref
from collections import deque
from typing import Any

from torch import Tensor, nn

from delaykit.attaching.batch import refusals
from delaykit.attaching.batch.asked_resets import AskedReset
from delaykit.attaching.batch.membranes import RESET, SAME, Change, LeftMembrane, begins_alike
from delaykit.attaching.batch.older_membranes import OlderMembranes
from delaykit.attaching.batch.states import resting_of
from delaykit.attaching.history.connection_history import History, Moment
from delaykit.attaching.history.told_changes import TellsLines
from delaykit.attaching.neuron_reading import ReadsNeurons
from delaykit.attaching.scope import RootScope
from delaykit.errors import HistoryError

RECENT = 16  # membranes by which other streams than in the example are known


class NeuronWatch(TellsLines):
    """Knows whether a neuron's membrane is the one that the neuron's own last step left behind.

    Args:
        module: the neuron.
        adapter: who knows where its membrane is.
        scope: the wrapped root.

    Attributes:
        steps: how often it was stepped.
        resets: how often its membrane began anew, by the library's own reset or by its values.
        forgotten: how often by the library's own reset alone.
        cuts: how often its membrane lost its graph (truncated BPTT).
        followers: histories that its resets empty, row by row, before they are stepped.
        inputs: histories of the connections that lead to it.
        owned: histories of its own connections.
        truncated: histories that are cut with its membrane.
        period: number of streams that take turns on it.
    """

    def __init__(self, module: nn.Module, adapter: ReadsNeurons, scope: RootScope | None = None) -> None:
        self.module: nn.Module | None = module
        self.adapter, self.scope = adapter, scope
        self.followers: list[History] = []
        self.inputs: list[History] = []
        self.owned: list[History] = []
        self.truncated: list[History] = []
        self.path, self.period = "", 1
        self.begin()

    def begin(self) -> None:
        """Know nothing of the steps before."""
        self.steps, self.resets, self.forgotten, self.cuts, self.inside, self._handed = 0, 0, 0, 0, False, False
        self._given: tuple[Any, Any] = (), {}
        self.owed: list[tuple[History, object, Tensor | None]] = []  # beginnings that it has to share
        self._call, self._to_begin, self._forgot = 0, 0, False
        self._began: Tensor | None = None  # the membrane that the last call of the root began with
        self._left: deque[LeftMembrane] = deque(maxlen=self.period)
        self._recent: deque[weakref.ref[Tensor]] = deque(maxlen=RECENT + 2 * self.period)
        self._matched, self._unknown, self._older = False, 0, OlderMembranes()
        self._spared = False  # whether a reset of other models wrote into it, while the caller has its membrane
        self.asked = AskedReset()  # a reset of which the next membrane has to tell whether a sequence begins

    def expect(self, streams: int) -> None:
        """Let at least so many streams take turns on the neuron."""
        if streams > self.period:
            self.period = streams
            self._left, self._recent = deque(maxlen=streams), deque(maxlen=RECENT + 2 * streams)

    def last_step(self) -> dict[str, Any]:
        """Return what is known of the membrane that was left, for a watch that goes on from here."""
        if self.period > 1 or not self._left:
            return {}
        self._left[0].release()
        return {"left": self._left[0], "began": self._began}

    def go_on_from(self, left: LeftMembrane, began: Tensor | None) -> None:
        """Know a membrane that another watch saw its neuron leave."""
        if self.period == 1:
            left.copies = self.watches_values()
            self._left.append(left)
            self._began = began

    def neuron(self, module: Any) -> nn.Module:
        """Return the neuron, which is ``module`` where it came out of a pickle."""
        self.module = module if self.module is None else self.module
        return self.module

    def rows(self) -> int | None:
        """Count the rows of the membrane that was left; None where there is none."""
        return len(left) if self._left and (left := self._left[0].tensor) is not None and left.dim() else None

    def watches_values(self) -> bool:
        """Tell whether a membrane that is written to must be compared with what was there."""
        return bool(self.followers or self.owned or self.inputs)

    def moment(self) -> Moment:
        """Return the moment as of now, counting a reset that the neuron itself has not met yet."""
        if not (self.steps or self.resets) and self.module is not None and self.adapter.membrane(self.module) is None:
            self.resets = 1  # at rest before its first step, be it of a copy: a sequence begins
        if not self.inside and self._left and self.period == 1 and self.module is not None:
            membrane = self._left[0].tensor if self._spared else self.adapter.membrane(self.module)
            change = self._certain(self._left[0].look(membrane, self._of_one_sample), membrane)
            if change != SAME:
                self._refuse_unknown(change, membrane, steps=1)
                self._tell(change, (*self.followers, *self.owned))
                self._left[0].keep(membrane)
                self._left[0].line = self._left[0].line and not change.cut
        return Moment(self.resets, self.cuts)

    def forget(self, meant: bool = True, alone: bool = True) -> None:
        """Note a reset that the library has just made: the membrane that comes next is a new one.

        A membrane that the caller hands on is none of what a reset writes to: a running one that comes back in spite of
        it is refused, and a reset of other models (snnTorch's reaches every neuron there is) changes nothing.

        Args:
            meant: whether it was made of this neuron, or of a model with it.
            alone: whether of nothing but this neuron.
        """
        if self.inside:
            return
        if self._handed and self._left and not meant:
            self._spared = True
            return
        if self._handed:
            late = [h.where for h in (*self.inputs, *self.followers, *self.owned) if h.under_way()]
            self.asked.note(self._left, late, alone)
        self._spared = False
        self.resets, self.forgotten = self.resets + 1, self.forgotten + 1
        self._older.note(*(left.values for left in self._left))
        self._left.clear()
        for history in (*self.followers, *self.owned):
            history.clear_with(self)  # now, and not when it is next stepped: a copy made in between has lost nothing
        for history in self.inputs:
            if history.leader is not self and history.leads_several() and history.under_way():
                history.left_by = self.path
        self._forgot = True
        self._recent.clear()

    @refusals.taken_once
    def enter(self, held: Tensor | None, given: Tensor | None, passes: bool, call: tuple[Any, Any] = ((), {})) -> None:
        """Begin a step of the neuron.

        Args:
            held: the membrane that it keeps, None where the caller carries it.
            given: the membrane that is passed to this call, if any.
            passes: whether the caller passes a state, be it None.
            call: its arguments.
        """
        self._given = call
        for history in self.inputs:
            for beat in history.beats:
                if beat.neuron is self and history.age and self.steps - beat.mark >= beat.each and history.under_way():
                    raise history.out_of_step(beat, self.steps - beat.mark + 1)
        membrane, self._handed = (given if passes else held), passes
        if self.asked:
            self.asked.check(self.path, membrane, self._of_one_sample)
        if self._spared:
            self._lose_spared(passes)
        serial = 0 if self.scope is None or self.scope.depth == 0 else self.scope.serial
        first, self._call = self._call != serial, serial
        self._to_begin = self.period if first else self._to_begin
        if self._to_begin:
            self._to_begin -= 1
            self.check_begins(membrane)
        if self.period > 1:
            self._take_turns(membrane)
        elif self._left and (first or not self._left[0].untouched(membrane)):
            self._meet(membrane, passes and membrane is not held, first)
        if self.owed:
            self._begin_too(membrane)
        for history in self.inputs:
            if history.resized is not None:
                raise refusals.unknown_rows(self.path, history.where, history.resized)
        self.steps, self.inside = self.steps + 1, True

    def _lose_spared(self, passes: bool) -> None:
        """Refuse a reset of other models after all, where the neuron goes on from what that has written."""
        self._spared = False
        late = [] if passes else [h.where for h in (*self.inputs, *self.followers, *self.owned) if h.under_way()]
        if late:
            raise refusals.two_readings(self.path, RESET, late[0])

    def _begin_too(self, membrane: Tensor | None) -> None:
        """Refuse to go on where a connection began anew with another neuron that it leads to."""
        owed, self.owed = self.owed, []
        for history, mark, rows in owed:
            if self._forgot or membrane is None or history.owes is not mark:
                continue
            there = membrane.detach()
            if bool((there if rows is None or len(rows) != len(there) else there[rows]).any()):
                raise refusals.one_of_several(history.where, history.leader.path, self.path)

    def unfinished(self) -> bool:
        """Tell whether the root's call before this one failed, and the neuron was not stepped since."""
        return self.scope is not None and self.scope.unfinished and self._call != self.scope.serial

    def may_be_cut(self) -> bool:
        """Tell whether it is the caller who holds the membrane, and connections follow it."""
        return self._handed and bool(self.followers) and len(self._left) == self.period == 1

    def foresee(self, given: list[Tensor]) -> None:
        """Cut the connections that follow it where its membrane is given without the graph that it had."""
        self.cuts += self._left[0].comes_cut(given)

    def _cut_before(self) -> None:
        """Refuse a graph that was cut here, at the neuron, where the connection before it has read what is older."""
        for history in self.inputs:
            if history not in self.followers:
                continue
            if history.reads_graph():
                raise refusals.cut_too_late(self.path, history.where)
            history.moment = Moment(self.resets, self.cuts)  # cut already, or nothing to cut

    def _meet(self, membrane: Tensor | None, handed: bool, first: bool) -> None:
        """Compare the membrane of this step with the one that was left; the connections before it were stepped.

        ``handed``: the caller passed it, so nobody saw it before; ``first``: this is the first step of a root call,
        which other connections than those that follow a neuron began in.
        """
        if handed and membrane is not self._left[0].tensor and self._left_ago(membrane) > 1:
            late = [h.where for h in self.inputs if h.age > 1 and h.under_way(before_last=True)]
            late += [h.where for h in (*self.followers, *self.owned) if h not in self.inputs and h.under_way()]
            if late:
                tried = first and self.scope is not None and self.scope.unfinished
                raise (refusals.unfinished if tried else refusals.older_membrane)(self.path, late[0])
        change = self._certain(self._left[0].look(membrane, self._of_one_sample, self._resting), membrane)
        if change == SAME:
            return
        self._refuse_unknown(change, membrane, steps=2)
        if not handed:
            self._tell(change, (*self.followers, *self.owned))
            self._refuse_alone(change, first)
        else:
            if change.cut:
                self.cuts += 1
                self._cut_before()
            self._tell_owned(change)
        if change.kind == "resized":
            for history in self.inputs:
                history.resized = None
        elif change.kind in ("reset", "rows", "unclear") and (handed or not first):
            stale = [h for h in self.inputs if h.age > 1 and (handed or h not in self.followers)]
            if not handed and change.kind != "unclear":
                stale = [h for h in stale if not h.leads_several()]  # these are asked above
            stale = [h for h in stale if not first or self._goes_on(h)]
            late = [h.where for h in stale if h.late_in(change.rows)]
            if late:
                raise refusals.two_readings(self.path, change, late[0])

    def _refuse_unknown(self, change: Change, membrane: Tensor | None, steps: int) -> None:
        """Refuse a membrane of an older sequence, whose line is gone, and one that nobody can tell to be detached.

        The second where lines hold a graph of so many ``steps``.
        """
        if change.kind == "reset":
            self._older.note(self._left[0].values)
        elif change.kind != "same" and membrane in self._older:
            where = (*self.inputs, *self.followers, *self.owned)[0].where
            raise refusals.older_membrane(self.path, where, replaced=True)
        late = [h.where for h in self.truncated if h.holds_graph(steps)] if change.doubt else []
        if late:
            raise refusals.maybe_cut(f"the membrane of neuron {self.path!r}", late[0])

    def _refuse_alone(self, change: Change, first: bool) -> None:
        """Refuse a beginning that the neuron which a connection follows had no part in."""
        if change.kind not in ("reset", "rows"):
            return
        rows, shared = change.rows, [h for h in self.inputs if h.leads_several() and h.leader is not self and h.age > 1]
        for history in shared if not first else filter(self._goes_on, shared):
            if history.late_in(rows):
                raise refusals.one_of_several(history.where, self.path, history.leader.path)

    def _goes_on(self, history: History) -> bool:
        """Tell whether a connection follows a neuron from one root call to the next."""
        watches = () if self.scope is None else self.scope.watches
        return any(history in watch.followers for watch in (self, *watches))

    def check_begins(self, membrane: Tensor | None) -> None:
        """Refuse a state that may go on from the last call of the root, at whose end spikes were lost.

        One at rest begins a sequence, and so does what the last call began with.

        Raises:
            HistoryError: it is another one.
        """
        late = [] if self.scope is None else [h.where for h in self.scope.histories if h.lost]
        left = self._left[0] if len(self._left) == self.period == 1 else None
        own = left is not None and left.is_own(membrane)
        if not late or membrane is None or not membrane.numel() or (not own and begins_alike(self._began, membrane)):
            self._began = None if membrane is None else membrane.detach()
            return
        held = self.module is None or self.adapter.membrane(self.module) is not None
        same = left is not None and left.look(membrane).kind == "same"
        raise refusals.lost_between_calls(self.path, ", ".join(late), same, held)

    def _resting(self) -> Tensor | None:
        """Return what the membrane is in a fresh state, where that is not zero."""
        args, kwargs = self._given
        state = args[1] if len(args) > 1 else kwargs.get("state")
        if self.module is None or not isinstance(state, tuple):
            return None
        fresh = resting_of(self.adapter, self.module, state)
        return None if fresh is None else self.adapter.membrane(self.module, fresh)

    def _of_one_sample(self) -> bool:
        """Tell whether inputs had no batch, so that the one dimension of a membrane counts neurons and no rows."""
        return {history.lines for history in (*self.inputs, *self.followers, *self.owned)} - {None} == {1}

    def _left_ago(self, membrane: Tensor | None) -> int:
        """Count how many steps ago the neuron left this very membrane, be it written to or a view; 0: nobody knows."""
        if membrane is None:
            return 0
        for ago, left in enumerate(reversed(self._left), 1):
            if left.is_place(membrane):
                return ago
        for ago, seen in enumerate(reversed(self._recent), 1):
            if seen() is membrane:
                return ago
        return 0

    def _take_turns(self, membrane: Tensor | None) -> None:
        """Check that streams come in the order of the example: each goes on from the membrane it left itself."""
        ago = self._left_ago(membrane)
        if ago == self.period:
            self._matched = True
            return
        if not ago and len(self._left) < self.period:
            return
        if not ago and membrane is not None and bool(membrane.any()):
            known = [left.look(membrane).kind == "same" for left in self._left]
            if known[0]:  # where others look the same, too, values tell nothing
                self._matched = self._matched or sum(known) == 1
                return
            ago = self.period - known.index(True) if any(known) else 0
        self._unknown += not ago
        late = [h.where for h in self.inputs if h.under_way()]
        if late and (ago or (not self._matched and self._unknown > 2 * self.period)):
            raise refusals.other_streams(self.path, self.period, late[0])

    def leave(self, membrane: Tensor | None) -> None:
        """End a step and remember the membrane it left."""
        self.inside, self._given, self._forgot = False, ((), {}), False
        if len(self._left) == self.period:
            if self.period > 1:
                self._left.rotate(-1)
            left = self._left[-1]
        else:
            left = LeftMembrane(self.watches_values())
            self._left.append(left)
        left.keep(membrane)
        left.line = any(h.recorded() for h in self.truncated) if membrane is None or membrane.is_leaf else False
        if membrane is not None and (self._handed or self.period > 1):
            self._recent.append(weakref.ref(membrane))
        left.keeps_nothing = membrane is None and bool(self.followers)  # of others the state may be out of sight

    def release(self) -> list[HistoryError]:
        """End of a root call: let the graph go, streams begin anew with the next; return what was wrong with it."""
        wrong: list[HistoryError] = []
        if self.period > 1:
            if self._unknown and not self._matched:
                wrong = [refusals.other_streams(self.path, self.period, h.where) for h in self.inputs if h.under_way()]
            self._left.clear()
            self._matched, self._unknown = False, 0
        if not self.followers:  # else the run goes on, and an older membrane may be handed to the next call
            self._recent.clear()
        held = None if self.module is None else self.adapter.membrane(self.module)
        for left in self._left:
            if left.tensor is not held:  # else the neuron itself holds its graph
                left.release()
        return wrong

    def __getstate__(self) -> dict[str, Any]:
        """Leave the neuron behind, which may not be able to come along where a connection is pickled alone."""
        kept = ("adapter", "scope", "followers", "inputs", "owned", "truncated", "path", "period")
        return {name: self.__dict__[name] for name in kept} | {"module": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= {"truncated": state["followers"]} | state
        self.begin()
