"""Rows of a connection's input that are not those of its Norse neuron, whose state is permuted, masked and cut."""

from __future__ import annotations

import copy

import pytest
import torch
from queue_reference import Line
from torch import nn
from torch.utils._pytree import tree_map

import delaykit as dk

DELAYS, TIME, AT = [2.0, 1.3], 9, 4
GONE = torch.tensor([True, False])


def data():
    x = torch.rand(TIME, 2, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x[AT:] = 0.0
    return x


class Turned(nn.Module):
    def forward(self, x):
        return x.transpose(0, 1)


def chain(layout):
    norse = pytest.importorskip("norse.torch", reason="wraps norse models")
    torch.manual_seed(0)
    turns = [Turned()] if layout == "swap" else []
    bare = norse.SequentialState(*turns, nn.Linear(2, 3), *turns, norse.LICell()).double()
    where = str(len(turns))
    rules = {where: dk.FreeDelay("axonal", max_delay=4, init=DELAYS)}
    net = copy.deepcopy(bare)
    dk.wrap_(net, rules, example=lambda: net(data()[0], None))
    return net, bare, Line(bare[len(turns)], torch.tensor(DELAYS, dtype=torch.float64), "axonal")


def walk(net, x, change=None):
    state, out = None, []
    with torch.no_grad():
        for t, step in enumerate(x):
            if t == AT and change is not None:
                state = change(state)
            _, state = net(step, state)
            out.append(torch.cat([state[-1].v, state[-1].i], -1))
    return out


def everywhere(make):
    return lambda state: tree_map(lambda v: v if v is None else make(v), state)


def neurons_alone(make):
    return lambda state: tree_map(lambda v: make(v) if torch.is_tensor(v) else v, state)


MAKES = {"permuted": lambda v: v[[1, 0]], "at zero": lambda v: v * (~GONE).double().view(2, 1, 1),
         "cut": lambda v: v[:1]}  # fmt: skip


@pytest.mark.parametrize("make", MAKES)
@pytest.mark.parametrize("over", [everywhere, neurons_alone])
def test_rows_of_a_norse_state(over, make):
    change, x = over(MAKES[make]), data()
    x = x if make != "cut" else [*x[:AT], *x[AT:, :1]]
    with pytest.raises(dk.HistoryError, match="which are others"):
        walk(chain("swap")[0], x, change)
    if over is everywhere:
        net, bare, line = chain("plain")

        def of_the_bare(state):
            if make == "at zero":
                line.clear_rows(GONE)
            else:
                line.keep_rows([1, 0] if make == "permuted" else [0])
            return change(state)

        torch.testing.assert_close(walk(net, x, change), walk(bare, x, of_the_bare))


@pytest.mark.parametrize("over", [everywhere, neurons_alone])
@pytest.mark.parametrize("layout", ["plain", "swap"])
def test_a_whole_norse_state_that_begins_anew_or_is_edited(layout, over):
    for factor in (0.0, 0.5):
        net, bare, line = chain(layout)

        def of_the_bare(state, over=over, factor=factor, line=line):
            if factor == 0.0:
                line.clear()
            return over(lambda v: v * factor)(state)

        edit = over if factor == 0.0 else neurons_alone
        torch.testing.assert_close(
            walk(net, data(), edit(lambda v, factor=factor: v * factor)), walk(bare, data(), of_the_bare)
        )
