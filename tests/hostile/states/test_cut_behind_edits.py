"""A state that is detached and edited between the same two steps: the line before its neuron is cut, whatever else was
done to all entries, in whatever order.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils._pytree import tree_map

import delaykit as dk
from delaykit.adapters.norse import sequential
from delaykit.attaching.batch.rows import LineRows, Rows

norse = pytest.importorskip("norse.torch", reason="carries the states of Norse models")

STEPS, CUT, DELAY = 8, 3, 2.5
ORDER = [2, 0, 1]
MASK = torch.tensor([[1.0], [0.0], [1.0]], dtype=torch.float64)
EDITS = {  # what is done to every entry, and to the rows of a queue
    "permuted": (lambda v: v[ORDER], lambda rows: rows[ORDER]),
    "masked": (lambda v: v * MASK, lambda rows: rows * MASK),
    "scaled": (lambda v: v * 0.5, lambda rows: rows),
    "copied": (lambda v: v.clone(), lambda rows: rows),
}
NEURONS = ["li", "box", "recurrent"]
SITES = [  # of neuron, granularity and kernel every value, and of the neurons every granularity but one
    ("li", "layer", "linear"),
    ("li", "axonal", "gaussian"),
    ("box", "dendritic", "linear"),
    ("box", "axonal", "triangle"),
    ("recurrent", "synaptic", "linear"),
    ("recurrent", "axonal", "linear"),
]


def guarded(do):
    return lambda state: tree_map(lambda v: do(v) if torch.is_tensor(v) else v, state)


def over_all(do):
    return lambda state: tree_map(lambda v: v if v is None else do(v), state)


DETACHES = {"guarded": guarded(lambda v: v.detach()), "all": over_all(lambda v: v.detach())}


def net_of(neuron, granularity="axonal", kernel="linear", wrapped=True):
    torch.manual_seed(0)
    cells = {"li": norse.LICell, "box": norse.LIBoxCell, "recurrent": lambda: norse.LIFRecurrentCell(2, 2)}
    net = norse.SequentialState(nn.Linear(2, 2, bias=False), cells[neuron]()).double()
    spread = {} if kernel == "linear" else {"kernel": kernel, "spread": 1.0}
    rule = dk.FreeDelay(granularity, max_delay=5, init=DELAY, **spread)
    rules = {"0": rule} if neuron != "recurrent" else {"0": rule, "1.recurrent": rule}
    return dk.wrap_(net, rules, example=torch.zeros(3, 2, dtype=torch.float64))


def stepped(net, edits, unrecorded):
    """Step a net, or a cell, and edit its state at the cut; return the inputs and what each step returned."""
    x = 1 + torch.rand(STEPS, 3, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x.requires_grad_()
    state, returned = None, []
    for t, frame in enumerate(x):
        if t == CUT:
            for edit in edits:
                state = edit(state)
        with torch.set_grad_enabled(t != unrecorded):
            returned.append(net(frame, state))
        state = returned[-1][1]
    return x, returned


def run(net, edits, unrecorded=None):
    """Return the gradient of the steps behind the cut with respect to the input of each step, and the outputs."""
    x, returned = stepped(net, edits, unrecorded)
    out = [y for y, _ in returned]
    loss = sum((k + 1) * (y[0] if isinstance(y, tuple) else y).square().sum() for k, y in enumerate(out[CUT:]))
    return torch.autograd.grad(loss, x)[0], out


@pytest.mark.parametrize(("neuron", "granularity", "kernel"), SITES)
@pytest.mark.parametrize("edit", EDITS)
def test_a_detach_of_tensors_cuts_the_line_whatever_else_happened(neuron, granularity, kernel, edit):
    do = over_all(EDITS[edit][0])
    wanted, values = run(net_of(neuron, granularity, kernel), [do, DETACHES["all"]])
    assert not wanted[:CUT].any() and wanted[CUT:].any()
    uncut, _ = run(net_of(neuron, granularity, kernel), [do])
    assert uncut[:CUT].any()  # the two readings differ here
    for edits in ([do, DETACHES["guarded"]], [DETACHES["guarded"], do], [do, DETACHES["guarded"], do]):
        found, out = run(net_of(neuron, granularity, kernel), edits)
        assert not found[:CUT].any()
        if len(edits) == 2:
            torch.testing.assert_close(found, wanted)
            assert all(torch.equal(a, b) for a, b in zip(out, values, strict=True))


@pytest.mark.parametrize("edit", ["permuted", "masked"])
def test_permuted_rows_have_the_gradients_of_a_queue(edit):
    net = net_of("li")
    do, rows = EDITS[edit]
    found, out = run(net, [over_all(do), DETACHES["guarded"]])
    bare = norse.LICell().double()
    x = (1 + torch.rand(STEPS, 3, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)).requires_grad_()
    state, queue, loss = None, [torch.zeros(3, 2, dtype=torch.float64)] * 4, 0.0
    for t, frame in enumerate(x):
        if t == CUT:
            queue, state = [rows(one).detach() for one in queue], over_all(lambda v: do(v).detach())(state)
        queue = [frame, *queue[:-1]]
        y, state = bare(nn.functional.linear(0.5 * queue[2] + 0.5 * queue[3], net[0].weight), state)
        torch.testing.assert_close(out[t], y)
        loss = loss + (t - CUT + 1) * y.square().sum() * (t >= CUT)
    torch.testing.assert_close(found, torch.autograd.grad(loss, x)[0])


@pytest.mark.parametrize("neuron", NEURONS)
def test_behind_a_step_that_was_not_recorded_it_is_cut_or_refused(neuron):
    for do in (over_all(lambda v: v[ORDER]), over_all(lambda v: v.clone())):
        for edits in ([do, DETACHES["guarded"]], [DETACHES["guarded"], do]):
            try:
                found, _ = run(net_of(neuron), edits, unrecorded=CUT - 1)
            except dk.HistoryError as error:
                assert "may have been detached, too" in str(error)
            else:
                assert not found[:CUT].any()
        found, _ = run(net_of(neuron), [do, DETACHES["all"]], unrecorded=CUT - 1)
        assert not found[:CUT].any()


def cell(edits, unrecorded=None):
    """Run a cell whose own state carries its line."""
    torch.manual_seed(0)
    net = norse.LIFRecurrentCell(2, 2, p=norse.LIFParameters(v_th=torch.tensor(1e9))).double()
    rule = dk.FreeDelay("axonal", max_delay=5, init=DELAY)
    dk.wrap_(net, {"input": rule}, example=torch.zeros(3, 2, dtype=torch.float64))
    x, returned = stepped(net, edits, unrecorded)
    loss = sum(state.v.square().sum() for _, state in returned[CUT:])
    return torch.autograd.grad(loss, x)[0]


@pytest.mark.parametrize("unrecorded", [None, CUT - 1])
@pytest.mark.parametrize("edit", EDITS)
def test_a_cell_tells_also_where_there_was_no_graph_to_lose(edit, unrecorded):
    do, cut = over_all(EDITS[edit][0]), DETACHES["guarded"]
    assert cell([do], unrecorded)[: CUT - 1].any()
    fields = lambda s: s._replace(z=s.z.detach(), v=s.v.detach(), i=s.i.detach())  # noqa: E731
    for edits in ([do, cut], [cut, do], [do, fields], [fields, do], [do, cut, do]):
        found = cell(edits, unrecorded)
        assert not found[:CUT].any()


@pytest.mark.parametrize("neuron", NEURONS)
def test_rows_moved_by_tensors_alone_behind_all_entries_are_not_lost(neuron):
    for second in (lambda v: v[ORDER], lambda v: v.flip(0)):
        for do in (over_all(lambda v: v[ORDER]), over_all(lambda v: v.clone())):
            with pytest.raises(dk.HistoryError, match="rows were changed"):
                run(net_of(neuron), [do, guarded(second)])


PIECE = 4


def by_pieces(edits, unrecorded):
    """Feed whole sequences in pieces; the edits are made with or without gradients being recorded."""
    torch.manual_seed(0)
    net = norse.SequentialState(nn.Linear(2, 2, bias=False), norse.LI()).double()
    rule = dk.FreeDelay("axonal", max_delay=5, init=DELAY)
    dk.wrap_(net, {"0": rule}, example=torch.zeros(PIECE, 3, 2, dtype=torch.float64))
    x = 1 + torch.rand(2 * PIECE, 3, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x.requires_grad_()
    first, state = net(x[:PIECE], None)
    with torch.set_grad_enabled(not unrecorded):
        for edit in edits:
            state = edit(state)
    second, _ = net(x[PIECE:], state)
    return net, x, torch.cat([first, second])


@pytest.mark.parametrize("unrecorded", [False, True], ids=["recorded", "under no_grad"])
@pytest.mark.parametrize("detached", ["never", "before", "behind"])
@pytest.mark.parametrize("edit", ["permuted", "masked", "copied"])
def test_permuted_pieces_have_the_gradients_of_a_queue(edit, detached, unrecorded):
    """What is made of a state under ``no_grad`` is a constant, as every tensor is."""
    do, rows = EDITS[edit]
    edits = {"never": [], "before": [DETACHES["guarded"]], "behind": []}[detached]
    edits = [*edits, over_all(do), *([DETACHES["guarded"]] if detached == "behind" else [])]
    net, x, out = by_pieces(edits, unrecorded)
    cut = unrecorded or detached != "never"
    bare, state, queue, wanted = norse.LICell().double(), None, [torch.zeros(3, 2, dtype=torch.float64)] * 4, []
    y = x.detach().clone().requires_grad_()
    for t, frame in enumerate(y):
        if t == PIECE:
            queue, state = [rows(one) for one in queue], over_all(do)(state)
            if cut:
                queue, state = [one.detach() for one in queue], over_all(lambda v: v.detach())(state)
        queue = [frame, *queue[:-1]]
        v, state = bare(nn.functional.linear(0.5 * queue[2] + 0.5 * queue[3], net[0].weight), state)
        wanted.append(v)
    torch.testing.assert_close(out, torch.stack(wanted))
    losses = (out[PIECE:].square().sum(), torch.stack(wanted[PIECE:]).square().sum())
    found, expected = (
        torch.autograd.grad(loss, (one, net[0].weight)) for loss, one in zip(losses, (x, y), strict=True)
    )
    torch.testing.assert_close(found, expected)
    assert bool(expected[0][:PIECE].any()) != cut


def changed_entries_are_left_alone(patch):
    patch.setattr(sequential, "_moved", lambda where, entry, *_, moved=sequential._moved: moved(where, entry, *_)
                  if not entry.changed else entry)  # fmt: skip


def what_was_done_to_an_entry_is_forgotten(patch):
    patch.setattr(LineRows, "_with", lambda self, ids: self.twin(_ids=ids, drives=None, batch=self._kind[0]))


def what_was_done_to_tensors_alone_is_forgotten(patch):
    patch.setattr(Rows, "replaced", lambda self, cut: self)


def a_second_move_is_forgotten(patch):
    patch.setattr(sequential, "_moved_again", lambda where, entry, *_: entry)


PLANTED = {
    changed_entries_are_left_alone: lambda: test_permuted_rows_have_the_gradients_of_a_queue("permuted"),
    what_was_done_to_an_entry_is_forgotten: lambda: test_behind_a_step_that_was_not_recorded_it_is_cut_or_refused("li"),
    what_was_done_to_tensors_alone_is_forgotten: lambda: test_a_cell_tells_also_where_there_was_no_graph_to_lose(
        "copied", CUT - 1
    ),
    a_second_move_is_forgotten: lambda: test_rows_moved_by_tensors_alone_behind_all_entries_are_not_lost("li"),
}


@pytest.mark.parametrize("plant", PLANTED, ids=lambda plant: plant.__name__)
def test_a_planted_fault_is_found(plant, monkeypatch):
    PLANTED[plant]()
    plant(monkeypatch)
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        PLANTED[plant]()
