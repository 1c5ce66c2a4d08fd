"""Rows of a snnTorch membrane that change places and are edited in one go: spikes would stay in the old rows."""

from __future__ import annotations

import pytest
import torch
from rigs import Loop, late

import delaykit as dk

P = torch.tensor([2, 0, 1])
EDITS = {
    "scaled": lambda m: 0.9 * m,
    "shifted": lambda m: m + 0.01,
    "scaled and shifted": lambda m: 0.5 * m - 0.1,
}
MOVES = {
    "permuted": lambda m: m[P],
    "repeated": lambda m: m[torch.tensor([0, 0, 1])],
    "selected": lambda m: m.index_select(0, P),
    "flipped": lambda m: m.flip(0),
    "rolled": lambda m: m.roll(1, 0),
}


def run(between, post=6, grad=False, time=6):
    torch.manual_seed(0)
    net = Loop(post, post)
    dk.wrap_(net, {"fc": late(3, learn=False)}, example=torch.zeros(6, 3, post))
    x = torch.rand(10, 3, post, requires_grad=grad)
    with torch.set_grad_enabled(grad):
        return torch.stack(net(x, lambda net, t, mem: between(mem) if t == time else mem)), net, x


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("move", MOVES)
def test_a_move_with_an_edit_is_refused(move, edit):
    with pytest.raises(dk.HistoryError, match="a change of places, or an edit"):
        run(lambda mem: EDITS[edit](MOVES[move](mem)))


@pytest.mark.parametrize("move", MOVES)
def test_with_gradients_it_is_seen_in_rows_of_one_number_too(move):
    with pytest.raises(dk.HistoryError, match="a change of places, or an edit"):
        run(lambda mem: 0.9 * MOVES[move](mem).clamp(max=2.0), post=1, grad=True)


torch.manual_seed(1)
NOISE = torch.randn(3, 6)
ORDINARY = EDITS | {
    "noise": lambda m: m + 0.1 * NOISE,
    "clamped": lambda m: m.clamp(max=1.0),
    "squashed": lambda m: m.tanh(),
    "masked channels": lambda m: m * torch.tensor([1.0, 1.0, 0.0, 1.0, 0.0, 1.0]),
    "other channels": lambda m: m[:, torch.tensor([1, 0, 2, 3, 4, 5])],
    "all rows in turn": lambda m: 0.9 * m[torch.arange(3)],
    "negated": lambda m: -m,
}


@pytest.mark.parametrize("edit", ORDINARY)
@pytest.mark.parametrize("grad", [False, True])
def test_ordinary_edits_stay_edits_and_spikes_arrive(edit, grad):
    got, net, x = run(ORDINARY[edit], grad=grad)
    want = []
    with torch.no_grad():
        mem = torch.zeros(3, 6)
        for t in range(10):
            mem = ORDINARY[edit](mem) if t == 6 else mem
            mem = 0.9 * mem + (x[t - 3] if t > 2 else 0.0)
            want.append(mem)
    torch.testing.assert_close(got, torch.stack(want))
