"""Run a program on a model: the same loops and edits for the wrapped model and for the reference.

``side`` is told what happens: :class:`Side` for the wrapped model, which has to see it by itself, and
:class:`LineSide` for the reference, whose lines are told.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import nets
import torch
from programs import Edit, Program, Sequence
from queue_reference import Line, reading
from snntorch import utils
from torch import nn
from torch.utils._pytree import tree_map


class Side:
    """The wrapped model's side: it is told nothing but what a user must say.

    Args:
        reset: ``dk.reset`` of the model.
        rows: ``dk.reset`` with ``rows=``.
    """

    unclear = False
    meeting: threading.Barrier | None = None

    def __init__(self, reset, rows):
        self.reset, self.reset_rows = reset, rows

    def meet(self):
        """Let all threads come to the same step, as long as all of them run."""
        if self.meeting is not None:
            try:
                self.meeting.wait(10)
            except threading.BrokenBarrierError:
                pass

    def begin(self):
        """A sequence begins in the library's own way."""

    def membrane(self, index, old, new):
        """The membrane behind connection ``index`` was replaced or edited."""

    def emptied(self):
        """The library's own reset."""

    def emptied_rows(self, mask):
        """Rows of the states that the caller carries were set to zero."""

    def keep(self, rows):
        """Rows of state and input were selected."""

    def select(self, rows, states):
        """Rows of the membranes ``states[stream][layer]``, and of the input, were selected by their numbers."""

    def cut(self):
        """The states that the caller carries were detached."""

    def skipped(self, x):
        """The first connection was not called in this step."""


class LineSide(Side):
    """The reference's side.

    Args:
        lines: of the two connections.
        follows: whether the lines listen to the membranes (False: loops inside, manual resets).
    """

    def __init__(self, lines: list[Line], follows: bool):
        super().__init__(self._clear, self._rows)
        self.lines, self.follows, self.unclear = lines, follows, False

    def _clear(self):
        for line in self.lines:
            line.clear()

    def _rows(self, mask):
        for line in self.lines:
            line.clear_rows(mask)

    def begin(self):
        self._clear()

    def emptied(self):
        if self.follows:
            self._clear()

    def emptied_rows(self, mask):
        self._rows(mask)

    def membrane(self, index, old, new):
        if not self.follows:
            return
        line, verdict = self.lines[index], reading(old, new)
        if isinstance(verdict, torch.Tensor):
            line.clear_rows(verdict)
        elif verdict == "reset":
            line.clear()
        elif verdict == "cut":
            line.cut()
        self.unclear |= verdict == "unclear"

    def keep(self, rows):
        for line in self.lines:
            line.keep_rows(rows)

    def select(self, rows, states):
        for index, line in enumerate(self.lines):
            before = [state[index].detach() for state in states]
            if len(rows) == len(before[0]) and all(torch.equal(m, m[rows]) for m in before):
                continue  # equal values continue: nobody can see which of two equal rows is which
            self.unclear |= any(_twins(m, rows) for m in before)
            line.keep_rows(rows)

    def cut(self):
        for line in self.lines:
            line.cut()

    def skipped(self, x):
        self.lines[0].run(torch.zeros_like(x))


def _twins(membrane: torch.Tensor, rows: list[int]) -> bool:
    """Tell whether a row that stays is equal to one that leaves: either may be the one."""
    gone = [row for row in range(len(membrane)) if row not in rows]
    return any(torch.equal(membrane[a], membrane[b]) for a in rows for b in gone)


def data(sequence: Sequence) -> torch.Tensor:
    generator = torch.Generator().manual_seed(sequence.seed)
    return (torch.rand(sequence.time, sequence.batch, nets.PRE, generator=generator) < 0.4).double()


def change_weight(edit: Edit, layer: nn.Linear) -> None:
    value = layer.weight.detach() * (0.5 + edit.argument)
    if edit.name == "weight replaced":
        layer.weight = nn.Parameter(value)
    elif edit.name == "weight loaded":
        layer.load_state_dict({"weight": value}, strict=False)
    else:
        with torch.no_grad():
            layer.weight.copy_(value)


def edited(edit: Edit, mem: torch.Tensor) -> torch.Tensor:
    """Return a membrane after an edit that replaces it, or edit it in place."""
    if edit.name == "clamp":
        return mem.clamp(-0.5, 0.5)
    if edit.name == "noise":
        return mem + 0.1 * edit.argument
    if edit.name == "noise in place":
        with torch.no_grad():
            mem.add_(0.1 * edit.argument)
        return mem
    if edit.name == "detach":
        return mem.detach()
    if edit.name == "detach clone":
        return mem.detach().clone()
    if edit.name == "zero all":
        return torch.zeros_like(mem)
    if edit.name == "rows to zero":
        return mem * (~torch.tensor(edit.argument)).to(mem.dtype).unsqueeze(1)
    if edit.name == "permute rows":
        return mem[edit.argument]
    raise AssertionError(edit.name)


def run_outer(program: Program, sequence: Sequence, net, side) -> list[torch.Tensor]:
    neurons, rows = (net.lif1, net.lif2), list(range(sequence.batch))
    for neuron in neurons:
        neuron.reset_mem()
    if program.policy == "manual":
        side.reset()
    side.begin()
    edits, out = {e.time: e for e in sequence.edits}, []
    for t, x in enumerate(data(sequence)):
        if t in edits:
            rows = _edit_outer(edits[t], net, neurons, side, rows)
        out.append(net(x[rows]))
    return out


def _edit_outer(edit, net, neurons, side, rows):
    if edit.name.startswith("weight"):
        change_weight(edit, net.fc2)
        change_weight(edit, net.fc1)
    elif edit.name == "reset_mem":
        for neuron in neurons:
            neuron.reset_mem()
        side.emptied()
    elif edit.name == "utils.reset":
        utils.reset(net)
        side.emptied()
    elif edit.name == "placeholder":
        for neuron in neurons:
            neuron.mem = torch.zeros(0)
        side.emptied()
    elif edit.name == "dk.reset":
        side.reset()
    elif edit.name == "dk.reset rows":
        side.reset_rows(torch.tensor(edit.argument))
    elif edit.name == "drop last rows":
        rows = rows[: edit.argument]
        for neuron in neurons:
            neuron.mem = neuron.mem[: edit.argument]
        side.keep(list(range(edit.argument)))
    else:
        for index, neuron in enumerate(neurons):
            old = neuron.mem.clone()
            neuron.mem = edited(edit, neuron.mem)
            side.membrane(index, old, neuron.mem)
    return rows


def run_inner(program: Program, sequence: Sequence, net, side) -> list[torch.Tensor]:
    edits, steps = {e.time: e for e in sequence.edits}, list(data(sequence))

    def select(t, states, rows):
        side.select(rows, states)
        for state in states:
            state[:] = [mem[rows] for mem in state]
        for later in range(t, len(steps)):
            steps[later] = steps[later][rows]

    def visit(t, states):
        edit = edits.get(t)
        side.meet()
        if edit is None:
            return
        if edit.name.startswith("weight"):
            change_weight(edit, net.fc1), change_weight(edit, net.fc2)
        elif edit.name == "dk.reset":
            side.reset()
        elif edit.name == "dk.reset rows":
            side.reset_rows(torch.tensor(edit.argument))
        elif edit.name == "skip":
            side.skipped(steps[t])
        elif edit.name == "drop last rows":
            select(t, states, list(range(edit.argument)))
        elif edit.name == "permute rows":
            select(t, states, edit.argument)
        else:
            for state in states:
                state[:] = [edited(edit, mem) for mem in state]

    side.begin()
    skipped = {e.time for e in sequence.edits if e.name == "skip"}
    return net(steps, visit, program.views, lambda t: t not in skipped)


def over(change, state):
    """Change every part of a chain's state; a layer without a state has None there."""
    return tree_map(lambda v: None if v is None else change(v), state)


def run_chain(program: Program, sequence: Sequence, net, side) -> list[torch.Tensor]:
    edits, rows, state, out = {e.time: e for e in sequence.edits}, list(range(sequence.batch)), None, []
    side.begin()
    for t, x in enumerate(data(sequence)):
        edit = edits.get(t)
        side.meet()
        if edit is not None:
            state, rows = _edit_chain(edit, net, program.kind, side, state, rows)
        y, state = net(5 * x[rows], state)
        out.append(state.v if program.kind == "cell" else y)
    return out


def _edit_chain(edit, net, kind, side, state, rows):
    if edit.name.startswith("weight"):
        for layer in nets.layers(net, kind):
            change_weight(edit, layer)
    elif edit.name == "none":
        state = None
        side.emptied()
    elif edit.name == "detach":
        state = over(lambda v: v.detach(), state)
        side.cut()
    elif edit.name == "noise":
        noise = 0.1 * edit.argument
        if kind == "cell":
            state = state._replace(v=state.v + noise)
        else:
            state = [s._replace(v=s.v + noise) if hasattr(s, "v") else s for s in state]
    elif edit.name == "rows to zero":
        mask = torch.tensor(edit.argument)
        state = over(lambda v: v * (~mask).to(v.dtype).unsqueeze(1), state)
        side.emptied_rows(mask)
    else:
        kept = list(range(edit.argument)) if edit.name == "drop last rows" else edit.argument
        state = over(lambda v: v[kept], state)
        rows = [rows[k] for k in kept]
        side.keep(kept)
    return state, rows


RUN = {"outer": run_outer, "inner": run_inner, "chain": run_chain, "cell": run_chain}


def run(program: Program, net, side) -> tuple[list[list[torch.Tensor]], dict[str, torch.Tensor]]:
    """Run all sequences; return their outputs and the gradients of the weights."""

    def one(sequence: Sequence) -> list[torch.Tensor]:
        try:
            with torch.set_grad_enabled(sequence.gradients):
                return RUN[program.kind](program, sequence, net, side)
        finally:
            if side.meeting is not None:
                side.meeting.abort()

    if program.threads and isinstance(side, LineSide):  # lines are of one thread: one sequence after the other
        return [[y.detach() for y in one(sequence)] for sequence in program.sequences], {}
    if program.threads:
        side.meeting = threading.Barrier(len(program.sequences))
        if program.kind == "cell":
            nets.before_first_step(net, side.meet)
        with ThreadPoolExecutor(len(program.sequences)) as pool:
            return [[y.detach() for y in out] for out in pool.map(one, program.sequences)], {}
    outputs = []
    for sequence in program.sequences:
        out = one(sequence)
        if sequence.gradients and out[-1].requires_grad:
            sum((k + 1) * y.square().sum() for k, y in enumerate(out)).backward()
        outputs.append([y.detach() for y in out])
    return outputs, {n: p.grad.clone() for n, p in net.named_parameters() if p.grad is not None}
