"""Rows of inputs with more dimensions than (batch, channel), or without a batch: a row of a state is a sample."""

from __future__ import annotations

import copy

import pytest
import torch
from queue_reference import Line
from rigs import exact_or_refused, leaky
from torch import nn
from torch.utils._pytree import tree_map

import delaykit as dk

DELAYS = {
    "layer": 2.0, "axonal": [2.0, 1.3], "dendritic": [1.0, 2.6, 0.4], "synaptic": [[2.0, 1.3], [0.4, 3.0], [1.5, 0.0]],
}  # fmt: skip
TIME, AT, PATCHES = 9, 4, 4
GONE = torch.tensor([True, False])


class Single(Line):
    """A line that also takes steps without a batch."""

    def run(self, x):
        return super().run(x) if x.dim() > 1 else super().run(x[None])[0]


def data(*shape):
    return torch.rand(TIME, *shape, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def both(kind, shape):
    """Return a wrapped net and a bare one with a queue in it."""
    torch.manual_seed(0)
    bare = nn.Sequential(nn.Linear(2, 3), leaky(0.7, init_hidden=True, output=True)).double()
    net, delay = copy.deepcopy(bare), DELAYS[kind]
    dk.wrap_(net, {"0": dk.FreeDelay(kind, max_delay=4, init=delay)}, example=data(*shape)[0])
    return net, bare, Single(bare[0], torch.tensor(delay, dtype=torch.float64), kind)


def run(net, x, change):
    net[1].reset_mem()
    out = []
    with torch.no_grad():
        for t, step in enumerate(x):
            if t == AT:
                change(net)
            out.append(net(step)[1].clone())
    return out


def no_patch(net):
    net[1].mem = net[1].mem * torch.tensor([0.0, 1.0, 1.0, 1.0], dtype=torch.float64)[:, None]


def no_row(net):
    net[1].mem = net[1].mem * ~GONE.view(2, 1, 1)


def in_place(net):
    net[1].mem.mul_(~GONE.view(2, 1, 1))


def by_name(net):
    dk.reset(net, rows=GONE)


@pytest.mark.parametrize("kind", DELAYS)
@pytest.mark.parametrize("reset", [no_row, in_place, by_name, no_patch])
def test_a_row_of_patches_begins_anew_with_its_sample(reset, kind):
    """A patch of all samples set to zero is an edit: no sample is at zero."""
    net, bare, line = both(kind, (2, PATCHES))
    x = data(2, PATCHES)

    def of_the_bare(bare):
        if reset is not no_patch:
            line.clear_rows(GONE)
        if reset is not by_name:
            reset(bare)

    torch.testing.assert_close(run(net, x, reset), run(bare, x, of_the_bare))


@pytest.mark.parametrize("kind", DELAYS)
def test_samples_of_patches_dropped_from_the_end(kind):
    net, bare, line = both(kind, (3, PATCHES))
    x = data(3, PATCHES)
    x = [*x[:AT], *x[AT:, :2]]

    def cut(net):
        net[1].mem = net[1].mem[:2]
        if net is bare:
            line.keep_rows([0, 1])

    torch.testing.assert_close(run(net, x, cut), run(bare, x, cut))


def test_a_mask_that_fits_no_sample_is_refused():
    net, *_ = both("axonal", (2, PATCHES))
    for rows in ([True] * 3, []):
        run(net, data(2, PATCHES), lambda _: None)
        with pytest.raises(dk.HistoryError, match="a mask of"):
            dk.reset(net, rows=torch.tensor(rows, dtype=torch.bool))


EDITS = {
    "neurons at zero": lambda m: m * torch.tensor([0.0, 1.0, 1.0], dtype=torch.float64),
    "in place": lambda m: m.mul_(torch.tensor([0.0, 1.0, 1.0], dtype=torch.float64)),
    "neurons flipped": lambda m: m.flip(0),
}


@pytest.mark.parametrize("kind", DELAYS)
@pytest.mark.parametrize("edit", EDITS)
def test_a_membrane_without_a_batch_is_one_row(edit, kind):
    """Lateral inhibition sets some neurons to zero: the sample goes on."""
    net, bare, _ = both(kind, ())

    def change(net):
        net[1].mem = EDITS[edit](net[1].mem)

    torch.testing.assert_close(run(net, data(), change), run(bare, data(), change))


def chain(*shape):
    norse = pytest.importorskip("norse.torch", reason="wraps norse models")
    torch.manual_seed(0)
    bare = norse.SequentialState(nn.Linear(2, 3), norse.LICell()).double()
    net, delay = copy.deepcopy(bare), DELAYS["axonal"]
    dk.wrap_(net, {"0": dk.FreeDelay("axonal", max_delay=4, init=delay)}, example=lambda: net(data(*shape)[0], None))
    return net, bare, Single(bare[0], torch.tensor(delay, dtype=torch.float64), "axonal")


def cell(*shape):
    norse = pytest.importorskip("norse.torch", reason="wraps norse models")
    torch.manual_seed(0)
    net = norse.LIFRecurrentCell(2, 3).double()
    rules = {"input": dk.FreeDelay("axonal", max_delay=4, init=DELAYS["axonal"])}
    return dk.wrap_(net, rules, example=lambda: net(data(*shape)[0], None))


def walk(net, x, change=None):
    state, out = None, []
    with torch.no_grad():
        for t, step in enumerate(x):
            if t == AT and change is not None:
                state = change(state)
            _, state = net(step, state)
            last = state[1] if isinstance(state, list) else state
            out.append(torch.cat([last.v, last.i], -1))
    return out


MOVES = {"flipped": (lambda v: v.flip(0), [2, 1, 0]), "last two": (lambda v: v[1:], [1, 2]),
         "by index": (lambda v: v[[2, 0]], [2, 0]), "cloned": (torch.clone, [0, 1, 2])}  # fmt: skip


@pytest.mark.parametrize("move", MOVES)
@pytest.mark.parametrize("of_tensors", [False, True])
def test_samples_of_patches_move_with_a_norse_state(move, of_tensors):
    make, rows = MOVES[move]

    def change(state):
        return tree_map(lambda v: v if v is None or (of_tensors and not torch.is_tensor(v)) else make(v), state)

    x = data(3, PATCHES)
    x[:, 0] = 0.0  # nothing is under way in the first: what moves is seen
    moved = [*x[:AT], *x[AT:, rows]]
    for net in (chain(3, PATCHES)[0], cell(3, PATCHES)):
        whole = walk(net, x)
        want = [*whole[:AT], *(v[rows] for v in whole[AT:])]
        with exact_or_refused():
            torch.testing.assert_close(walk(net, moved, change), want)
            assert not of_tensors or move == "cloned"
    if not of_tensors:
        net, bare, line = chain(3, PATCHES)
        torch.testing.assert_close(
            walk(net, moved, change), walk(bare, moved, lambda s: (line.keep_rows(rows), change(s))[1])
        )


@pytest.mark.parametrize("build", [lambda *s: chain(*s)[0], cell], ids=["chain", "cell"])
def test_a_sample_of_patches_begins_anew_with_its_norse_state(build):
    x, mask = data(2, PATCHES), (~GONE).view(2, 1, 1).double()
    net = build(2, PATCHES)
    whole, alone = walk(net, x), walk(net, x[AT:])
    got = walk(net, x, lambda state: tree_map(lambda v: v if v is None else v * mask, state))
    torch.testing.assert_close([v[1] for v in got], [v[1] for v in whole])
    torch.testing.assert_close([v[0] for v in got[AT:]], [v[0] for v in alone])


@pytest.mark.parametrize("way", ["tensors", "hand"])
def test_a_norse_state_without_a_batch_is_one_row(way):
    mask = torch.tensor([0.0, 1.0, 1.0], dtype=torch.float64)

    def change(state):
        if way == "tensors":
            return tree_map(lambda v: v * mask if torch.is_tensor(v) else v, state)
        return [s._replace(v=s.v * mask, i=s.i * mask) if hasattr(s, "_fields") else s for s in state]

    net, bare, _ = chain()
    torch.testing.assert_close(walk(net, data(), change), walk(bare, data(), change))
    net = cell()
    edited = lambda s: s._replace(z=s.z * mask, v=s.v * mask, i=s.i * mask)  # noqa: E731
    with torch.no_grad():
        net.recurrent_weights.zero_()
    got, whole = walk(net, data(), edited), walk(net, data())
    torch.testing.assert_close(got[:AT], whole[:AT])
    # a current is linear in what came: its difference to the run that nobody edited dies out, and nothing is lost
    gaps = [(a - b)[3] for a, b in zip(got[AT:], whole[AT:], strict=True)]
    assert bool(gaps[0] != 0)
    torch.testing.assert_close(gaps[1:], [0.8 * gap for gap in gaps[:-1]])
