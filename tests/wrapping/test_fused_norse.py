"""``dk.fused`` on models of Norse: loops with carried states, ``SequentialState``, recurrent cells."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import torch
from fused_cases import HIDDEN, OUT, PRE, TIME, assert_equal_runs, assert_fused, loud, spikes
from torch import Tensor, nn
from torch.utils._pytree import tree_map

import delaykit as dk
from delaykit.testing.nets import norse as nets_norse

norse = pytest.importorskip("norse.torch", reason="wraps norse models")


def parameters() -> Any:
    return nets_norse._parameters()


class Loop(nn.Module):
    """Linear, cell, Linear, cell; states begin with None and the last ones are returned."""

    def __init__(self, first: type, last: type, linear: bool = True) -> None:
        super().__init__()
        self.fc1 = nn.Linear(PRE, HIDDEN) if linear else nn.Identity()
        self.first = make(first)
        self.fc2, self.last = nn.Linear(HIDDEN, OUT), make(last)

    def forward(self, x: Tensor, states: Any = (None, None)) -> Any:
        one, two = states
        rec = []
        for step in x:
            spk, one = self.first(self.fc1(step), one)
            spk, two = self.last(self.fc2(spk), two)
            rec.append(spk + two.v)
        return torch.stack(rec), (one, two)


def make(cls: type) -> nn.Module:
    if "Recurrent" in cls.__name__:
        cell = cls(PRE, HIDDEN, p=parameters())
        with torch.no_grad():
            cell.input_weights.mul_(2.0)
        return cell
    if cls.__name__.startswith("LI"):
        try:
            return cls(p=parameters()) if cls.__name__ == "LIFCell" else cls()
        except TypeError:
            return cls()
    return cls()


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(5)


CASES = {
    "LIF": lambda: Loop(norse.LIFCell, norse.LIFCell),
    "LI": lambda: Loop(norse.LIFCell, norse.LICell),
    "box": lambda: Loop(norse.LIFCell, norse.LIBoxCell),
    "recurrent": lambda: Loop(norse.LIFRecurrentCell, norse.LIFCell, linear=False),
}


def loudest(net: nn.Module) -> nn.Module:
    loud(net)
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.Linear):
                module.weight.mul_(2.0)
    return net


@pytest.mark.parametrize("granularity", ["", "axonal", "synaptic"])
@pytest.mark.parametrize("name", CASES)
def test_a_loop_with_carried_states_runs_ahead(name: str, granularity: str) -> None:
    net = loudest(CASES[name]())
    if granularity:
        rules = {"fc*": dk.FreeDelay(granularity, max_delay=4)}
        if name == "recurrent":
            rules = {k: dk.FreeDelay(granularity, max_delay=4) for k in ("fc2", "first.input", "first.recurrent")}
        dk.wrap_(net, rules, example=spikes(), generator=torch.Generator().manual_seed(2))
    fast = assert_fused(net, spikes())
    assert_equal_runs(net, fast, net, spikes(TIME + 3, 2))


def test_a_bare_loop_goes_on_from_a_given_state() -> None:
    net = loudest(CASES["LIF"]())
    fast = dk.fused(net, example=spikes())
    x = spikes(12)
    whole, last = net(x)
    with torch.no_grad():
        first, states = fast(x[:5])
        second, states = fast(x[5:], states)
    torch.testing.assert_close(torch.cat([first, second]), whole.detach(), rtol=0, atol=1e-9)
    for one, two in zip(states, last, strict=True):
        torch.testing.assert_close(one.i, two.i.detach(), rtol=0, atol=1e-9)
        torch.testing.assert_close(one.v, two.v.detach(), rtol=0, atol=1e-9)


@pytest.mark.parametrize("granularity", ["", "axonal", "synaptic"])
def test_a_sequential_state_takes_whole_sequences(granularity: str) -> None:
    net = norse.SequentialState(
        nn.Linear(PRE, HIDDEN), norse.LIFCell(p=parameters()), nn.Linear(HIDDEN, OUT), norse.LIFCell(p=parameters())
    )
    loudest(net)

    def by_hand(x: Tensor) -> tuple[Tensor, Any]:
        state, rec = None, []
        for step in x:
            output, state = net(step, state)
            rec.append(output)
        return torch.stack(rec), state

    if granularity:
        rule = {"*": dk.FreeDelay(granularity, max_delay=4)}
        dk.wrap_(net, rule, example=lambda: by_hand(spikes()), generator=torch.Generator().manual_seed(2))
    fast = assert_fused(net, spikes(), loop="outside")
    assert_equal_runs(net, fast, by_hand, spikes(TIME + 2, 2))
    with torch.no_grad():
        torch.testing.assert_close(fast(spikes())[0], by_hand(spikes())[0], rtol=0, atol=1e-6)
    assert set(fast.report().values()) == {"ahead"}, str(fast)


def delayed_sequential(granularity: str) -> tuple[Any, Any]:
    net = norse.SequentialState(
        nn.Linear(PRE, HIDDEN), norse.LIFCell(p=parameters()), nn.Linear(HIDDEN, OUT), norse.LIFCell(p=parameters())
    ).double()
    loudest(net)

    def loop(x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        rec = []
        for step in x:
            output, state = net(step, state)
            rec.append(output)
        return torch.stack(rec), state

    x = spikes().double()
    dk.wrap_(net, {"*": dk.FreeDelay(granularity, max_delay=4, init=2.5)}, example=lambda: loop(x))
    return net, loop


@pytest.mark.parametrize("granularity", ["axonal", "dendritic", "synaptic"])
def test_a_sequential_state_goes_on_from_the_last_state_of_a_fused_run(granularity: str) -> None:
    net, loop = delayed_sequential(granularity)
    x = spikes(TIME + 6, 2).double()
    fast = dk.fused(net, example=x)
    whole = loop(x)[0]
    assert 0.05 < whole[TIME:].mean() < 0.95
    for begins, goes_on in ((fast, fast), (fast, loop), (loop, fast)):
        first, state = begins(x[:TIME])
        found = torch.cat([first, goes_on(x[TIME:], state)[0]])
        torch.testing.assert_close(found, whole, rtol=0, atol=1e-9)
        weights = list(net.parameters())
        grads = (torch.autograd.grad(y.square().sum(), weights, retain_graph=True) for y in (found, whole))
        torch.testing.assert_close(*grads, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("granularity", ["axonal", "dendritic", "synaptic"])
@pytest.mark.parametrize(("change", "rows"), [(lambda v: v.detach(), [0, 1]), (lambda v: v[[1, 0]], [1, 0])])
def test_a_last_state_of_a_fused_run_is_cut_and_permuted_as_any(granularity: str, change: Any, rows: Any) -> None:
    net, loop = delayed_sequential(granularity)
    x, weights = spikes(TIME + 6, 2).double(), list(net.parameters())
    fast, ends = dk.fused(net, example=x), []
    for begins in (fast, loop):
        after = loop(x[TIME:][:, rows], tree_map(change, begins(x[:TIME])[1]))[0]
        ends.append([after, *torch.autograd.grad(after.square().sum(), weights, materialize_grads=True)])
    torch.testing.assert_close(*ends, rtol=1e-8, atol=1e-8)


def test_a_last_state_is_refused_after_a_step_of_the_optimizer_unless_it_was_detached() -> None:
    net, loop = delayed_sequential("axonal")
    x = spikes(TIME + 6, 2).double()
    fast = dk.fused(net, example=x)
    states = [tree_map(lambda v: v.detach(), run(x[:TIME])[1]) for run in (fast, loop)]
    _, late = fast(x[:TIME])
    with torch.no_grad():
        net[0].weight.mul_(1.5)
    torch.testing.assert_close(*(loop(x[TIME:], state)[0] for state in states), rtol=0, atol=1e-9)
    with pytest.raises(dk.HistoryError, match=r"after a change of the weights.*detach the state before"):
        loop(x[TIME:], late)


def test_a_model_holds_nothing_of_a_fused_run_that_the_caller_has_dropped() -> None:
    net, _ = delayed_sequential("axonal")
    fast = dk.fused(net, example=spikes().double())
    output, state = fast(spikes().double())
    entry = weakref.ref(state[0])
    assert entry() is not None
    del output, state
    gc.collect()
    assert entry() is None


def test_a_delayed_state_of_a_fused_run_cannot_go_on() -> None:
    net = loudest(CASES["recurrent"]())
    dk.wrap_(net, {"first.recurrent": dk.FreeDelay("axonal", init=2, max_delay=4)}, example=spikes())
    fast = dk.fused(net, example=spikes())
    _, states = fast(spikes())
    with pytest.raises(dk.HistoryError, match="without its delay history"):
        fast(spikes(), states)
