"""Rounding: whole delays forward, real gradients backward, and nothing lost that was not asked for."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import delaykit as dk
from delaykit.interfaces import Site
from delaykit_delrec import DelRec, discretization_gap
from delaykit_delrec.rounding import stochastic, straight_through

SITE = Site("fc", 50, 50)


def build(**options):
    return DelRec(**options).build(SITE, torch.Generator().manual_seed(0))


def wrapped(**options) -> nn.Sequential:
    net = nn.Sequential(nn.Linear(3, 2))
    rule = dk.At(DelRec(max_delay=6, init="uniform", **options), reset="manual")
    return dk.wrap_(net, {"0": rule}, example=torch.ones(1, 3), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("policy", [straight_through, stochastic])
def test_rounded_delays_are_whole_within_bounds_and_pass_the_gradient(policy) -> None:
    delays = torch.tensor([0.0, 1.2, 3.5, 4.7], requires_grad=True)
    rounded = policy(delays, 4.7)
    assert torch.equal(rounded, rounded.round()) and float(rounded.max()) <= 4
    (gradient,) = torch.autograd.grad(rounded.sum(), delays)
    assert gradient.tolist() == [1.0] * 4


def test_stochastic_rounding_has_the_real_delay_as_its_mean() -> None:
    torch.manual_seed(0)
    delays = torch.full((20000,), 3.3)
    rounded = stochastic(delays, 10.0)
    assert set(rounded.tolist()) == {3.0, 4.0} and abs(float(rounded.mean()) - 3.3) < 0.015


def test_stochastic_delays_are_nearest_in_evaluation() -> None:
    delay = build(rounding="stochastic")
    exact = delay.exact().detach()
    assert not torch.equal(delay.delays(), delay.delays())
    assert torch.equal(delay.eval().delays(), exact.round())


def test_each_epoch_rounds_in_place_and_the_default_does_not() -> None:
    rounded, kept = build(rounding="each-epoch"), build()
    before = kept.delay.detach().clone()
    for delay in (rounded, kept):
        delay.advance_(0.1)
    assert torch.equal(rounded.delay, before.round()) and torch.equal(kept.delay, before)


def test_discretized_restores_delays_and_spread() -> None:
    net = wrapped(sigma=2.0)
    delay = net[0].dk.delay
    before = {key: value.clone() for key, value in delay.state_dict().items()}
    with dk.discretized(net):
        assert torch.equal(delay.delays(), before["delay"].round().reshape(1, 3)) and float(delay.sigma) == 0
    assert all(torch.equal(value, before[key]) for key, value in delay.state_dict().items())


def test_a_maximum_between_whole_steps_is_never_rounded_above() -> None:
    delay = build(max_delay=4.7, init=4.6)
    delay.discretize_()
    delay.check()
    assert float(delay.delays().max()) == 4


def test_the_gap_scores_both_ways_in_evaluation_mode_and_leaves_the_net_as_it_was() -> None:
    net = wrapped(sigma=2.0)
    net.train()
    seen = []

    def score(model: nn.Module) -> float:
        seen.append((model.training, torch.is_grad_enabled(), float(model[0].dk.delay.sigma)))
        return 0.9 if seen[-1][2] else 0.7

    gap = discretization_gap(net, score)
    assert gap == (0.9, 0.7) and gap.gap == pytest.approx(0.2) and "gap +0.2000" in str(gap)
    assert seen == [(False, False, 2.0), (False, False, 0.0)] and all(m.training for m in net.modules())


TIME = 12


def loop(net: nn.Module, cut: int = TIME, weights_move: bool = False) -> torch.Tensor:
    """Step a followed net through one sequence of training; its graph is cut every ``cut`` steps."""
    torch.manual_seed(3)
    net.train()[1].reset_mem()
    x, out = (torch.rand(TIME, 2, 3) < 0.4).float(), []
    torch.manual_seed(5)
    for t, step in enumerate(x):
        if t and t % cut == 0:
            net[1].mem = net[1].mem.detach()
            if weights_move:
                net[0].weight = nn.Parameter(net[0].weight.detach().clone())
        out.append(net(step)[1])
    return torch.stack(out)


@pytest.mark.parametrize("granularity", ["layer", "axonal", "dendritic", "synaptic"])
@pytest.mark.parametrize("weights_move", [False, True])
def test_one_draw_a_sequence_over_all_cuts(granularity: str, weights_move: bool) -> None:
    """Truncated backpropagation reads the delays anew at every cut: the draw stays, as that of the whole sequence."""
    snn = pytest.importorskip("snntorch", reason="needs snnTorch, the extra `snntorch`")
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), snn.Leaky(0.5, threshold=1e9, init_hidden=True, output=True))
    dk.wrap_(net, {"0": DelRec(granularity, max_delay=6, init="uniform", sigma=0.0, rounding="stochastic")},
             example=torch.zeros(2, 3))  # fmt: skip
    whole = loop(net)
    for cut in (1, 3, 5):
        torch.testing.assert_close(loop(net, cut, weights_move), whole)


@pytest.mark.parametrize(
    ("weight", "granularity"),
    [("linear", "axonal"), ("linear", "dendritic"), ("linear", "synaptic"), ("convolution", "axonal"),
     ("convolution", "dendritic")],
)  # fmt: skip
def test_one_draw_a_sequence_over_all_pieces(granularity: str, weight: str) -> None:
    norse = pytest.importorskip("norse.torch", reason="needs Norse, the extra `norse`")
    torch.manual_seed(0)
    layer = nn.Linear(7, 5) if weight == "linear" else nn.Conv1d(1, 2, 3)
    net = norse.SequentialState(layer, norse.LI())
    x = (torch.rand(TIME, *((2, 7) if weight == "linear" else (1, 7))) < 0.4).float()
    component = DelRec(granularity, max_delay=6, init="uniform", sigma=0.0, rounding="stochastic")
    rule = dk.At(component, time_dim=0)
    dk.wrap_(net, {"0": rule}, example=x)
    net.train()
    torch.manual_seed(5)
    whole, _ = net(x)
    torch.manual_seed(5)
    state, out = None, []
    for piece in x.split(5):
        y, state = net(piece, state)
        out.append(y)
    torch.testing.assert_close(torch.cat(out), whole)


def test_one_draw_a_sequence_where_the_state_carries_it() -> None:
    norse = pytest.importorskip("norse.torch", reason="needs Norse, the extra `norse`")
    torch.manual_seed(0)
    cell = norse.LIFRecurrentCell(3, 4)
    with torch.no_grad():
        cell.input_weights.abs_().mul_(3)
    component = DelRec("synaptic", max_delay=6, init="uniform", sigma=0.0, rounding="stochastic")
    dk.wrap_(cell, {"input": component, "recurrent": component}, example=torch.zeros(2, 3))
    x, ends = (torch.rand(TIME, 2, 3) < 0.6).float(), []
    for cut in (TIME, 2):
        torch.manual_seed(5)
        state = None
        for t, step in enumerate(x):
            if t and t % cut == 0:
                state = torch.utils._pytree.tree_map(lambda v: v.detach(), state)
            _, state = cell.train()(step, state)
        ends.append(state.v.detach())
    torch.testing.assert_close(*ends)


def test_the_loop_and_the_rollout_draw_the_same_way() -> None:
    snn = pytest.importorskip("snntorch", reason="needs snnTorch, the extra `snntorch`")
    torch.manual_seed(0)
    neuron = snn.RLeaky(beta=0.8, linear_features=4, init_hidden=True)
    component = DelRec("synaptic", max_delay=6, init="uniform", sigma=0.0, rounding="stochastic")
    dk.wrap_(neuron, {"recurrent": dk.At(component, reset="manual")})
    currents = 2 * torch.rand(TIME, 2, 4)
    torch.manual_seed(5)
    spikes, _ = dk.rollout(neuron.train(), currents)
    torch.manual_seed(5)
    neuron.reset_mem(), dk.reset(neuron)
    torch.testing.assert_close(torch.stack([neuron(current) for current in currents]), spikes)


def test_the_next_sequence_draws_anew() -> None:
    snn = pytest.importorskip("snntorch", reason="needs snnTorch, the extra `snntorch`")
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 64), snn.Leaky(0.5, threshold=1e9, init_hidden=True, output=True))
    dk.wrap_(net, {"0": DelRec("synaptic", max_delay=6, init="uniform", sigma=0.0, rounding="stochastic")},
             example=torch.zeros(2, 3))  # fmt: skip
    x = torch.ones(1, 2, 3)
    outs = []
    for _ in (0, 1):
        net.train()[1].reset_mem()
        outs.append(net(x[0])[1])
    assert not torch.equal(*outs)
