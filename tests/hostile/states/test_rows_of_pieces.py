"""Rows of a state between two pieces of whole sequences: what tree_map does to them is done to what is under way."""

from __future__ import annotations

import pytest
import torch
from rigs import late
from torch import nn
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_unflatten

import delaykit as dk

norse = pytest.importorskip("norse.torch", reason="wraps norse models")

TIME, ROWS = 12, 4
DONE = torch.tensor([False, True, False, True])
KEEP = (~DONE).float()


def linear(kind):
    net = norse.SequentialState(nn.Linear(6, 8), norse.LIFRecurrent(8, 8), nn.Linear(8, 4), norse.LI())
    with torch.no_grad():
        net[1].recurrent_weights.mul_(2)
    return net, {"0": late(2.5, kind), "2": late(3, kind), "1.recurrent": late(2)}


def lingering(kind):
    hetsyn = pytest.importorskip("delaykit_hetsyn", reason="needs the plugin delaykit-hetsyn")
    parts = late(3, kind), hetsyn.HetSyn(tau=("uniform", 2.0, 9.0), dt_ms=1.0)
    return norse.SequentialState(nn.Linear(6, 8), norse.LI()), {"0": dk.At(*parts, time_dim=0)}


BUILDS = {
    "axonal": (linear, "axonal"),
    "synaptic": (linear, "synaptic"),
    "dendritic": (linear, "dendritic"),
    "lingering": (lingering, "synaptic"),
}


def data(seed=1, shape=(ROWS, 6)):
    return 4 * (torch.rand(TIME, *shape, generator=torch.Generator().manual_seed(seed)) < 0.4).float()


def wrapped(name):
    build, kind = BUILDS[name]
    torch.manual_seed(0)
    net, rules = build(kind)
    return dk.wrap_(net, rules, example=data()), data()


def pieces(net, x, change, cut=4):
    """Run pieces of four steps; ``change(state)`` behind the first and the second."""
    out, state = [], None
    for piece in x.split(cut):
        y, state = net(piece, state if state is None else change(state))
        out.append(y)
    return out


def gradients(net):
    found = [None if p.grad is None else p.grad.clone() for p in net.parameters()]
    net.zero_grad()
    return [g for g in found if g is not None]


def like(v, mask):
    return mask.reshape(-1, *[1] * (v.dim() - 1))


ZERO = {
    "times a mask": lambda v: v * like(v, KEEP),
    "where": lambda v: torch.where(like(v, DONE), torch.zeros(()), v),
}


@pytest.mark.parametrize("way", ZERO)
@pytest.mark.parametrize("name", BUILDS)
def test_rows_at_zero_begin_anew(name, way):
    """Each row alone, from None where it begins anew: the same values, and together the same gradients."""
    net, x = wrapped(name)
    want = []
    for row in range(ROWS):
        if DONE[row]:
            want.append(torch.cat([net(piece[:, row : row + 1], None)[0] for piece in x.split(4)]))
        else:
            want.append(net(x[:, row : row + 1], None)[0])
    torch.cat(want, 1).square().sum().backward()
    expected = gradients(net)
    got = torch.cat(pieces(net, x, lambda state: tree_map(ZERO[way], state)))
    torch.testing.assert_close(got, torch.cat(want, 1), rtol=1e-4, atol=1e-5)
    whole = net(x, None)[0]
    assert not torch.allclose(got[:, DONE], whole[:, DONE], atol=1e-3)  # a test of something
    got.square().sum().backward()
    for one, two in zip(gradients(net), expected, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-4 * float(two.abs().max()))


MOVES = {
    "permuted": (lambda v: v[[1, 3, 0, 2]], [1, 3, 0, 2]),
    "halves swapped": (lambda v: torch.cat(v.chunk(2)[::-1]), [2, 3, 0, 1]),
    "split and joined": (lambda v: torch.cat(list(v.split(1))[::-1]), [3, 2, 1, 0]),
    "first two": (lambda v: v[:2], [0, 1]),
    "rolled": (lambda v: v.roll(1, 0), [3, 0, 1, 2]),
}


@pytest.mark.parametrize("move", MOVES)
@pytest.mark.parametrize("name", BUILDS)
def test_rows_move_with_tree_map(name, move):
    net, x = wrapped(name)
    change, rows = MOVES[move]
    with torch.no_grad():
        whole = net(x, None)[0]
        first, state = net(x[:4], None)
        second, _ = net(x[4:, rows], tree_map(change, state))
    torch.testing.assert_close(first, whole[:4])
    torch.testing.assert_close(second, whole[4:, rows], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["axonal", "dendritic"])
@pytest.mark.parametrize("channels", [1, 2])
def test_a_convolution_without_a_batch_is_one_row(kind, channels):
    """All of its state at zero empties the line; the channels of its neurons are no rows of it."""
    torch.manual_seed(0)
    net, x = norse.SequentialState(nn.Conv1d(channels, 2, 3), norse.LI()), data(shape=(channels, 6))
    dk.wrap_(net, {"0": dk.At(late(2.5, kind), time_dim=0)}, example=x)
    with torch.no_grad():
        fresh = net(x[4:], None)[0]
        torch.testing.assert_close(net(x[4:], tree_map(lambda v: v * 0, net(x[:4], None)[1]))[0], fresh)
        with pytest.raises(dk.HistoryError):
            net(x[4:], tree_map(lambda v: v * torch.tensor([[0.0], [1.0]]), net(x[:4], None)[1]))


def test_a_chunked_state_of_single_steps_moves_too():
    net = norse.SequentialState(nn.Linear(6, 8), norse.LIFRecurrentCell(8, 8), nn.Linear(8, 4), norse.LICell())
    x, rows = data(), [2, 3, 0, 1]

    def walk(x, state=None):
        out = []
        for step in x:
            y, state = net(step, state)
            out.append(y)
        return torch.stack(out), state

    dk.wrap_(net, {"0": late(3), "1.recurrent": late(2), "2": late(3, "dendritic")}, example=lambda: walk(x))
    with torch.no_grad():
        whole, _ = walk(x)
        _, state = walk(x[:5])
        second, _ = walk(x[5:, rows], tree_map(lambda v: torch.cat(v.chunk(2)[::-1]), state))
    torch.testing.assert_close(second, whole[5:, rows], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("sequences", [True, False])
def test_halves_of_two_runs_are_not_taken_for_one(sequences):
    """Row k of the one state beside row k of the other has the numbers of an untouched state, and is none."""
    net = norse.LIFRecurrent(6, 6) if sequences else norse.LIFRecurrentCell(6, 6)
    dk.wrap_(net, {"recurrent": late(3)}, example=data() if sequences else lambda: net(data()[0]))
    states = [net(data(seed) if sequences else data(seed)[3], None)[1] for seed in (1, 2)]
    states = [net(data(seed) if sequences else data(seed)[4], s)[1] for seed, s in enumerate(states)]
    leaves, spec = tree_flatten(states[0])
    mixed = tree_unflatten(
        [torch.cat([a[:2], b[2:]]) for a, b in zip(leaves, tree_leaves(states[1]), strict=True)], spec
    )
    with pytest.raises(dk.HistoryError, match="several runs"):
        net(data() if sequences else data()[5], mixed)


def test_rows_do_not_change_under_one_dropout():
    delrec = pytest.importorskip("delaykit_delrec", reason="needs the plugin delaykit-delrec")
    net = norse.SequentialState(nn.Linear(6, 8), norse.LI())
    rule = dk.At(delrec.DelRec("axonal", max_delay=5, init=3.0, sigma=0, dropout=0.5), time_dim=0)
    dk.wrap_(net, {"0": rule}, example=data())
    _, state = net.train()(data(), None)
    with pytest.raises(dk.HistoryError, match="one dropout"):
        net(data(), tree_map(lambda v: v * like(v, KEEP), state))
