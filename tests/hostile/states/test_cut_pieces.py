"""Whole sequences in pieces, cut in between: gradients of a queue that is cut at the same steps."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils._pytree import tree_map

import delaykit as dk

norse = pytest.importorskip("norse.torch", reason="feeds pieces to Norse's SequentialState")
TIME, PIECE = 12, 4
CUTS = {
    "every entry": lambda state: tree_map(lambda v: v if v is None else v.detach(), state),
    "tensors alone": lambda state: tree_map(lambda v: v.detach() if torch.is_tensor(v) else v, state),
}


def inputs():
    x = torch.zeros(TIME, 1, 2, dtype=torch.float64)
    x[2, 0, 0] = x[5, 0, 1] = x[6, 0, 0] = x[8, 0, 1] = 1.0
    return x.requires_grad_()


def queue(layer, delay, granularity, x, silent):
    """Run neuron and queue step by step; a dendritic line remembers currents, an axonal one spikes."""
    low, part = int(delay), delay - int(delay)
    cell, state, line, out = norse.LICell(), None, [torch.zeros(1, 2, dtype=torch.float64)] * (low + 2), []
    for t, step in enumerate(x):
        if t and t % PIECE == 0:
            line, state = [held.detach() for held in line], tree_map(lambda v: v.detach(), state)
        with torch.set_grad_enabled(not (silent and t < PIECE)):
            line = [layer(step) if granularity == "dendritic" else step, *line[:-1]]
            late = (1 - part) * line[low] + part * line[low + 1]
            y, state = cell(late if granularity == "dendritic" else layer(late), state)
        out.append(y)
    return torch.cat(out)


def pieces_net(granularity, max_delay, delay, **options):
    torch.manual_seed(0)
    net = norse.SequentialState(nn.Linear(2, 2, bias=False), norse.LI()).double()
    layer = nn.Linear(2, 2, bias=False).double()
    layer.load_state_dict(net[0].state_dict())
    rule = dk.FreeDelay(granularity, max_delay=max_delay, init=delay, **options)
    return dk.wrap_(net, {"0": rule}, example=torch.zeros(4, 1, 2, dtype=torch.float64)), layer


@pytest.mark.parametrize("silent", [False, True], ids=["recorded", "first without gradients"])
@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("delay", [1.0, 3.0, 2.5])
@pytest.mark.parametrize("granularity", ["dendritic", "axonal"])
def test_the_weight_hears_no_spike_from_before_the_cut(granularity, delay, cut, silent):
    net, layer = pieces_net(granularity, 5, delay, learn=False)
    x, state, pieces = inputs(), None, []
    for k in range(0, TIME, PIECE):
        with torch.set_grad_enabled(not (silent and k == 0)):
            y, state = net(x[k : k + PIECE], CUTS[cut](state) if k else None)
        pieces.append(y.flatten(0, 1))
    found, mine = torch.cat(pieces), inputs()
    wanted = queue(layer, delay, granularity, mine, silent)
    torch.testing.assert_close(found, wanted)
    found.square().sum().backward()
    wanted.square().sum().backward()
    torch.testing.assert_close(net[0].weight.grad, layer.weight.grad)
    torch.testing.assert_close(x.grad, mine.grad)
    assert layer.weight.grad.any()


def in_pieces(net, x, sizes, silent=(), cut=None, between=None):
    """Feed pieces of these sizes, some without gradients, and do something before the first of those."""
    out, state = [], None
    for k, piece in enumerate(x.split(sizes)):
        if silent and k == min(silent):
            state = CUTS[cut](state) if cut else state
            if between is not None:
                between()
        with torch.set_grad_enabled(k not in silent):
            y, state = net(piece, state)
        out.append(y.flatten(0, 1))
    return torch.cat(out)


PARTS = {"one": ([3, 2, 2], (1,)), "two": ([3, 1, 1, 2], (1, 2))}  # pieces, and which of them are without gradients


@pytest.mark.parametrize("changed", [False, True], ids=["same weight", "other weight"])
@pytest.mark.parametrize("parts", PARTS)
@pytest.mark.parametrize("granularity", ["layer", "axonal", "dendritic", "synaptic"])
def test_pieces_without_gradients_lose_no_graph_in_silence(granularity, parts, changed):
    """What they take the graph off arrives in the piece behind them."""
    net, _ = pieces_net(granularity, 5, 2.5)
    (sizes, silent), x = PARTS[parts], inputs()
    between = (lambda: net[0].weight.data.mul_(2)) if changed else None
    with pytest.raises(dk.HistoryError, match="behind a piece without.*detach the state"):
        in_pieces(net, x[:7], sizes, silent, between=between)
    in_pieces(net, x[:5], sizes[:-1], silent, between=between)  # nobody asks for a gradient behind them


@pytest.mark.parametrize("parts", PARTS)
@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("granularity", ["layer", "axonal", "dendritic", "synaptic"])
def test_pieces_without_gradients_behind_a_cut_are_exact(granularity, cut, parts):
    (sizes, silent), x = PARTS[parts], inputs()
    net, layer = pieces_net(granularity, 5, 2.5)
    steps = norse.SequentialState(layer, norse.LICell()).double()
    rule = dk.FreeDelay(granularity, max_delay=5, init=2.5)
    dk.wrap_(steps, {"0": rule}, example=torch.zeros(1, 2, dtype=torch.float64))
    found, mine, state, out = in_pieces(net, x[:7], sizes, silent, cut), inputs(), None, []
    for t, step in enumerate(mine[:7]):
        with torch.set_grad_enabled(t not in (3, 4)):
            y, state = steps(step, CUTS["every entry"](state) if t == 3 else state)
        out.append(y)
    torch.testing.assert_close(found, torch.cat(out))
    found.square().sum().backward()
    torch.cat(out).square().sum().backward()
    torch.testing.assert_close(x.grad, mine.grad)
    for one, other in zip(net.parameters(), steps.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


@pytest.mark.parametrize(("sizes", "silent"), [([2, 7, 3], (1,)), ([2, 3, 4, 3], (1, 2))], ids=["one", "two"])
@pytest.mark.parametrize("granularity", ["axonal", "dendritic"])
def test_pieces_without_gradients_that_outlast_every_delay_are_exact(granularity, sizes, silent):
    net, layer = pieces_net(granularity, 3, 2.0, learn=False)
    x, mine = inputs(), inputs()
    x.data[9] = mine.data[9] = 1.0
    found = in_pieces(net, x, sizes, silent)
    cell, state, line, out = norse.LICell(), None, [torch.zeros(1, 2, dtype=torch.float64)] * 3, []
    for t, step in enumerate(mine):
        with torch.set_grad_enabled(not 2 <= t < 9):
            step = step if torch.is_grad_enabled() else step.detach()
            line = [layer(step) if granularity == "dendritic" else step, *line[:-1]]
            y, state = cell(line[2] if granularity == "dendritic" else layer(line[2]), state)
        out.append(y)
    torch.testing.assert_close(found, torch.cat(out))
    found.square().sum().backward()
    torch.cat(out).square().sum().backward()
    torch.testing.assert_close(x.grad, mine.grad)
    torch.testing.assert_close(net[0].weight.grad, layer.weight.grad)
    assert layer.weight.grad.any()
