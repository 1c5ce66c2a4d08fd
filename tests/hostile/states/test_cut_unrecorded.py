"""A membrane detached behind a step that was not recorded: it had no graph to lose, and the line before it has one."""

from __future__ import annotations

import pytest
import torch
from rigs import snn
from torch import nn

import delaykit as dk

norse = pytest.importorskip("norse.torch", reason="carries the states of Norse models")

STEPS, GAP, DELAY = 9, 3, 2.5
GRANULARITIES = ["layer", "axonal", "dendritic", "synaptic"]
COPIES = {"clone": lambda v: v.clone(), "detached clone": lambda v: v.detach().clone()}
CUTS = {"detach": lambda v: v.detach(), "data": lambda v: v.data, "view of it": lambda v: v.detach()[:], **COPIES}
STAYS = {"as it is": lambda v: v, "view": lambda v: v[:], "edit": lambda v: v.mul_(1.5)}
MASK = torch.tensor([[1.0], [0.0], [1.0]], dtype=torch.float64)
REPLACED = {
    "edited": lambda v: v * 1.5,
    "detached and edited": lambda v: v.detach() * 1.5,
    "detached, a row at zero": lambda v: v.detach() * MASK,
    "detached and permuted": lambda v: v.detach()[[1, 2, 0]],
}
SITES = [(granularity, False) for granularity in GRANULARITIES] + [("axonal", True)]  # True: nothing in it learns


def rule(granularity):
    return dk.FreeDelay(granularity, max_delay=5, init=DELAY)


def frames():
    x = torch.rand(STEPS, 3, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return x.requires_grad_()


def weights():
    return torch.tensor([[0.5, -0.3], [0.2, 0.9]], dtype=torch.float64)


def gradients(out, x, weight, delay):
    wanted = [v for v in (x, weight, delay) if v.requires_grad]
    loss = sum((k + 1) * y.square().sum() for k, y in enumerate(out[GAP + 1 :]))
    return [g.sum() if v is delay else g for g, v in zip(torch.autograd.grad(loss, wanted), wanted, strict=True)]


def by_queue(granularity, frozen, cuts, edit=lambda v: v):
    """Say what a deque before (or, dendritic, behind) the weight gives; ``cuts``: it is cut behind the gap."""
    x, weight = frames(), weights().requires_grad_(not frozen)
    delay, mem, out = torch.tensor(DELAY, dtype=torch.float64, requires_grad=not frozen), 0.0, []
    queue, part = [torch.zeros(3, 2, dtype=torch.float64)] * 4, delay - 2
    for t, frame in enumerate(x):
        with torch.set_grad_enabled(t != GAP):
            queue = [frame @ weight.t() if granularity == "dendritic" else frame, *queue[:-1]]
            if t == GAP:
                queue[0] = queue[0].detach()
            late = (1 - part) * queue[2] + part * queue[3]
            mem = 0.5 * mem + (late if granularity == "dendritic" else late @ weight.t())
        out.append(mem)
        if t == GAP:
            mem = edit(mem).detach()
            queue = [entry.detach() for entry in queue] if cuts else queue
    return gradients(out, x, weight, delay), out


def freeze(net, layer, frozen):
    with torch.no_grad():
        layer.weight.copy_(weights())
    for parameter in net.parameters():
        parameter.requires_grad_(not frozen)


def hidden(granularity, frozen, cut, by_hand=lambda net: None):
    net = nn.Sequential(nn.Linear(2, 2, bias=False), snn.Leaky(0.5, threshold=1e9, init_hidden=True)).double()
    dk.wrap_(net, {"0": rule(granularity)}, example=torch.zeros(3, 2, dtype=torch.float64))
    freeze(net, net[0], frozen)
    net[1].reset_mem()
    x, out = frames(), []
    for t, frame in enumerate(x):
        with torch.set_grad_enabled(t != GAP):
            net(frame)
        out.append(net[1].mem)
        if t == GAP:
            net[1].mem = cut(net[1].mem)
            by_hand(net)
    return gradients(out, x, net[0].weight, net[0].dk.delay.delay), out


class Handed(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.lif = nn.Linear(2, 2, bias=False), snn.Leaky(0.5, threshold=1e9)

    def forward(self, x, mem):
        return self.lif(self.fc(x), mem)[1]


def handed(granularity, frozen, cut, by_hand=lambda net: None):
    def example():
        mem = net.lif.reset_mem()
        for _ in range(3):
            mem = net(torch.zeros(3, 2, dtype=torch.float64), mem)

    net = Handed().double()
    dk.wrap_(net, {"fc": rule(granularity)}, example=example)
    freeze(net, net.fc, frozen)
    x, out, mem = frames(), [], net.lif.reset_mem()
    for t, frame in enumerate(x):
        with torch.set_grad_enabled(t != GAP):
            mem = net(frame, mem)
        out.append(mem)
        if t == GAP:
            mem = cut(mem)
            by_hand(net)
    return gradients(out, x, net.fc.weight, net.fc.dk.delay.delay), out


def assert_agree(found, wanted):
    assert all(torch.allclose(a, b, rtol=1e-6, atol=1e-8) for a, b in zip(found[1], wanted[1], strict=True))
    for a, b in zip(found[0], wanted[0], strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("run", [hidden, handed])
@pytest.mark.parametrize(("granularity", "frozen"), SITES)
@pytest.mark.parametrize("cut", [*CUTS, *STAYS])
def test_a_detached_membrane_cuts_the_line_and_a_view_or_an_edit_does_not(run, granularity, frozen, cut):
    do = (CUTS | STAYS)[cut]
    found = run(granularity, frozen, do)
    wanted = by_queue(granularity, frozen, cut in CUTS, do)
    assert_agree(found, wanted)
    other = by_queue(granularity, frozen, cut not in CUTS, do)
    assert not torch.allclose(wanted[0][0], other[0][0])  # the two readings differ here


@pytest.mark.parametrize("run", [hidden, handed])
def test_an_edit_that_shall_cut_says_so_by_detach(run):
    for edit in (STAYS["edit"], REPLACED["edited"]):
        for granularity in GRANULARITIES:
            assert_agree(run(granularity, False, edit, dk.detach), by_queue(granularity, False, True, edit))


@pytest.mark.parametrize("run", [hidden, handed])
@pytest.mark.parametrize(("granularity", "frozen"), SITES)
@pytest.mark.parametrize("change", REPLACED)
def test_one_that_was_replaced_by_other_values_may_have_been_detached(run, granularity, frozen, change):
    with pytest.raises(dk.HistoryError, match="dk.detach|two readings|while spikes"):
        run(granularity, frozen, REPLACED[change])


def norse_cell():
    cell = norse.LIFRecurrentCell(2, 2, p=norse.LIFParameters(v_th=torch.tensor(1e9))).double()
    with torch.no_grad():
        cell.input_weights.copy_(weights())
        cell.recurrent_weights.zero_()
    return cell


def run_cell(cut, delayed=True):
    """Run a cell with a line, or the bare one behind a deque of spikes that ``cut`` (None: no) cuts."""
    cell, x, state, out = norse_cell(), frames(), None, []
    queue = [torch.zeros(3, 2, dtype=torch.float64)] * 4
    if delayed:
        dk.wrap_(cell, {"input": rule("axonal")}, example=torch.zeros(3, 2, dtype=torch.float64))
    for t, frame in enumerate(x):
        queue = [frame.detach() if t == GAP else frame, *queue[:-1]]
        with torch.set_grad_enabled(t != GAP):
            _, state = cell(frame if delayed else 0.5 * queue[2] + 0.5 * queue[3], state)
        out.append(state.v)
        if t == GAP and delayed:
            state = cut(state)
        elif t == GAP and cut:
            queue = [entry.detach() for entry in queue]
    loss = sum((k + 1) * y.square().sum() for k, y in enumerate(out[GAP + 1 :]))
    return torch.autograd.grad(loss, [x, cell.input_weights]), out


def over_all(do):
    return lambda state: torch.utils._pytree.tree_map(do, state)


def by_fields(do):
    return lambda state: state._replace(z=do(state.z), v=do(state.v), i=do(state.i))


@pytest.mark.parametrize("way", [over_all, by_fields])
def test_detached_norse_states(way):
    for name, cut in CUTS.items():
        if name == "clone" and way is over_all:  # below
            continue
        assert_agree(run_cell(way(cut)), run_cell(True, delayed=False))
    for stays in (STAYS["as it is"], STAYS["view"]):
        assert_agree(run_cell(way(stays)), run_cell(False, delayed=False))


def test_a_tree_map_over_all_of_a_norse_state_tells_a_copy_from_a_detached_one():
    assert_agree(run_cell(over_all(lambda v: v.clone())), run_cell(False, delayed=False))
    guarded = over_all(lambda v: v.detach() if torch.is_tensor(v) else v)
    assert_agree(run_cell(guarded), run_cell(True, delayed=False))


@pytest.mark.parametrize("change", REPLACED)
def test_a_norse_state_replaced_by_other_values_may_have_been_detached(change):
    for way in (by_fields(REPLACED[change]), over_all(lambda v: REPLACED[change](v) if torch.is_tensor(v) else v)):
        with pytest.raises(dk.HistoryError, match="may have been detached, too|rows were changed"):
            run_cell(way)
    assert_agree(
        run_cell(lambda state: state._replace(v=state.v * 1.0 + 0.0)), run_cell(False, delayed=False)
    )  # a part of it


def test_a_tree_map_that_edits_says_whether_it_detached():
    for cut in (True, False):
        found = run_cell(over_all(lambda v, cut=cut: (v.detach() if cut else v) * 1.0 + 0.0))
        assert_agree(found, run_cell(cut, delayed=False))


def run_container(cut):
    net = norse.SequentialState(nn.Linear(2, 2, bias=False), norse.LIFCell(norse.LIFParameters(v_th=torch.tensor(1e9))))
    net, x, state, out = net.double(), frames(), None, []
    with torch.no_grad():
        net[0].weight.copy_(weights())
    dk.wrap_(net, {"0": rule("axonal")}, example=torch.zeros(3, 2, dtype=torch.float64))
    for t, frame in enumerate(x):
        with torch.set_grad_enabled(t != GAP):
            _, state = net(frame, state)
        out.append(state[1].v)
        if t == GAP:
            state = cut(state)
    loss = sum((k + 1) * y.square().sum() for k, y in enumerate(out[GAP + 1 :]))
    return torch.autograd.grad(loss, [x, net[0].weight]), out


def test_neurons_of_a_container_detached_by_hand():
    def alone(do):
        return lambda state: [state[0], type(state[1])(*map(do, state[1]))]

    cut, not_cut = run_container(over_all(lambda v: v.detach())), run_container(lambda state: state)
    assert not torch.allclose(cut[0][0], not_cut[0][0])
    for way in CUTS.values():
        assert_agree(run_container(alone(way)), cut)
    assert_agree(run_container(alone(STAYS["view"])), not_cut)
    for change in REPLACED.values():
        with pytest.raises(dk.HistoryError, match="may have been detached, too|rows were changed"):
            run_container(alone(change))
