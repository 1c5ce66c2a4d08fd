"""Whole delays keep to ``max_delay``, whatever the precision of the model; so do spreads in float64."""

from __future__ import annotations

import pytest
import torch

import delaykit as dk
from delaykit.interfaces import Site


def layer(**options):
    net = torch.nn.Sequential(torch.nn.Linear(3, 2, bias=False))
    return dk.wrap_(net, {"0": dk.At(dk.FreeDelay("axonal", **options), reset="root", time_dim=0)})


def test_rounding_chooses_among_the_whole_delays_that_are_allowed():
    net, spikes = layer(max_delay=2.6, init=[2.6, 2.4, 0.6]), torch.eye(3).unsqueeze(0).repeat(6, 1, 1)
    spikes[1:] = 0
    with dk.discretized(net):
        assert net[0].dk.delay.delay.tolist() == [2.0, 2.0, 1.0]
        current = net(spikes).abs().sum(-1)
    assert [int(step) for step in current.ne(0).float().argmax(0)] == [2, 2, 1]
    assert net[0].dk.delay.delay.tolist() == pytest.approx([2.6, 2.4, 0.6])


def test_straight_through_keeps_to_max_delay_and_its_gradient():
    net = layer(max_delay=2.6, init=2.6, rounding="straight-through")
    delays = net[0].dk.delay.delays()
    assert delays.tolist() == [[2.0, 2.0, 2.0]]
    (gradient,) = torch.autograd.grad(delays.sum(), net[0].dk.delay.delay)
    assert gradient.tolist() == [1.0, 1.0, 1.0]
    net(torch.ones(4, 1, 3)).sum().backward()


@pytest.mark.parametrize("progress", [None, 0.3])
def test_a_spread_is_exact_in_a_float64_model(progress):
    net = layer(kernel="triangle", spread=2.3, spread_decay=0.97, init=1.0)
    if progress is not None:
        dk.advance_(net, progress)
    net.double()
    assert float(net[0].dk.delay.spread) == 2.3 * 0.97 ** (100 * (progress or 0))
    net.float()
    assert net[0].dk.delay.spread.dtype == torch.float32


def test_a_spread_that_was_loaded_is_kept():
    net = layer(kernel="triangle", spread=2.3, init=1.0)
    with torch.no_grad():
        net[0].dk.delay.spread.fill_(0.7)
    assert float(net.double()[0].dk.delay.spread) == float(torch.tensor(0.7))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_cast_to_half_precision_leaves_delays_and_spread_as_they_were(dtype: torch.dtype) -> None:
    config = dk.FreeDelay("axonal", max_delay=3000, init=2049.0, kernel="triangle", spread=0.0592)
    delay = config.build(Site("fc", 3, 2))
    spread = delay.spread.clone()
    delay.to(dtype)
    assert delay.delay.dtype == torch.float32 and delay.delay.tolist() == [2049.0] * 3
    assert torch.equal(delay.spread, spread)
