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
