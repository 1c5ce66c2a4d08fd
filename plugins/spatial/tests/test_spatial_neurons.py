"""Layers in space: each computes the network that its equations say, and the gradient that its estimator promises."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

import delaykit as dk
from delaykit_spatial import LIF, AdEx, Spatial, populations, share_positions_, spatial_param_groups
from delaykit_spatial.exact import SuperSpike, first_spike_times
from delaykit_spatial.exact.neuron import ExactAdEx

TIME, BATCH, PRE, SIZE = 40, 2, 5, 6
SPIKES = (torch.rand(TIME, BATCH, PRE, generator=torch.Generator().manual_seed(0)) < 0.2).double()
KINDS = {"lif": LIF, "adex": AdEx}


def layer(kind="lif", estimator="exact", dims=2, **options):
    generator = torch.Generator().manual_seed(1)
    spatial = Spatial(dims, pre="input", scale=2.0, **({"mean": 3.0} if dims == math.inf else {}))
    options = {"factors": (10.0, 5.0), "generator": generator} | options
    return KINDS[kind](PRE, SIZE, spatial, name="hidden", estimator=estimator, **options).double()


def by_hand(net, spikes, fine=1):
    """The same population, spike by spike, in a loop of finer steps that knows nothing of delaykit's operators.

    Returns its spikes. Arrivals and resets are whole steps, recurrent spikes come a step late as any.
    """
    n, dt = net.neuron, net.neuron.dt / fine
    late = (net.input.delay.delays().detach() * fine).round().long()
    loop = ((net.recurrent.delay.delays().detach() + 1) * fine).round().long()
    total = (len(spikes) + 1) * fine + int(max(late.max(), loop.max())) + 1
    jumps = torch.zeros(total, BATCH, SIZE, dtype=torch.float64)
    for t, b, i in spikes.nonzero().tolist():
        for j in range(SIZE):
            jumps[t * fine + late[j, i], b, j] += net.input.weight[j, i].detach()
    keep_v, keep_i = math.exp(-dt / n.tau_mem), math.exp(-dt / n.tau_syn)
    gain = (keep_i - keep_v) / (1 / n.tau_mem - 1 / n.tau_syn)
    v, current, out = torch.zeros(BATCH, SIZE).double(), torch.zeros(BATCH, SIZE).double(), []
    for t in range((len(spikes) - 1) * fine + 1):
        v, current = keep_v * v + gain * current, keep_i * current
        fired = (v >= n.threshold).double()
        v = v * (1 - fired)
        for b, i in fired.nonzero().tolist():
            for j in (j for j in range(SIZE) if j != i):
                jumps[t + loop[j, i], b, j] += net.recurrent.weight[j, i].detach()
        current = current + jumps[t]
        out.append(fired)
    return torch.stack(out)


@pytest.mark.parametrize("estimator", ["exact", "none"])
def test_a_layer_is_the_network_that_its_equations_say(estimator: str) -> None:
    net = layer(estimator=estimator)
    run = net(SPIKES)
    assert 0.01 < float(run.spikes.detach().mean()) < 0.4
    fine = by_hand(net, SPIKES, fine=100)
    for b in range(BATCH):
        for j in range(SIZE):
            at = run.spikes[:, b, j].nonzero().flatten()
            mine, hand = at + run.clock.detach()[at, b, j], fine[:, b, j].nonzero().flatten() / 100
            assert len(mine) == len(hand) and bool(((mine - hand).abs() < 0.2).all())  # steps; rounded ones: over 1


def test_at_whole_delays_interp_is_the_network_in_steps() -> None:
    net = layer(estimator="interp")
    for connection in (net.input, net.recurrent):
        connection.delay.discretize_()
    assert torch.equal(net(SPIKES).spikes.detach(), by_hand(net, SPIKES))


@pytest.mark.parametrize("kind", KINDS)
def test_what_does_not_learn_computes_the_same(kind: str) -> None:
    exact, none = (layer(kind, estimator)(SPIKES) for estimator in ("exact", "none"))
    assert 0.01 < float(exact.spikes.detach().mean()) < 0.4
    for one, two in zip(exact, none, strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("estimator", ["exact", "interp", "none"])
@pytest.mark.parametrize("dims", [2, math.inf])
def test_what_each_estimator_teaches(kind: str, estimator: str, dims: float) -> None:
    net = layer(kind, estimator, dims, surrogate=SuperSpike())
    run = net(SPIKES)
    (run.spikes.sum(0).pow(2).sum() + run.membrane.pow(2).sum()).backward()
    for connection in (net.input, net.recurrent):
        weight, places = connection.weight, list(connection.delay.parameters())
        assert bool(weight.grad.any()) and torch.isfinite(weight.grad).all()
        for place in places:
            taught = place.grad is not None and bool(place.grad.any())
            assert taught is (estimator != "none")
    assert not bool(net.recurrent.weight.grad.diagonal().any()), "nobody hears himself"


@pytest.mark.parametrize("kind", KINDS)
def test_a_larger_least_slope_makes_smaller_gradients_of_the_same_first_spikes(kind: str) -> None:
    norms, spikes = [], []
    for least in (1e-3, 50.0, 100.0):  # the upstroke of AdEx is as steep as 15
        net = layer(kind, min_slope=least, recurrent=False, once=True)
        run = net(SPIKES)
        run.clock.sum().backward()
        norms.append(float(net.input.weight.grad.norm()))
        spikes.append(run.spikes.detach())
    assert bool(spikes[0].any()) and all(torch.equal(one, spikes[0]) for one in spikes)
    assert norms[0] > norms[1] > norms[2] > 0


def test_exact_gradients_of_positions_are_slopes_of_spike_times() -> None:
    """Of a fine clock's spike times, by finite differences: the chain from place over distance and delay to time."""

    def times(net):
        run = net(torch.cat([SPIKES.new_zeros(1, 1, 2), SPIKES.new_ones(1, 1, 2), SPIKES.new_zeros(2400, 1, 2)]))
        return first_spike_times(run.spikes, run.clock, silent=2400.0) * net.neuron.dt

    generator = torch.Generator().manual_seed(0)
    net = LIF(2, 3, Spatial(2, scale=2.0), False, dt_ms=0.005, generator=generator).double()
    with torch.no_grad():
        net.input.weight.copy_(torch.tensor([[0.7, 0.6], [0.6, 0.9], [0.8, 0.7]]))
    places = net.input.delay.post_positions
    when = times(net)
    assert bool((when < 12.0).all())
    (found,) = torch.autograd.grad(when.sum(), places)
    wanted, step = torch.zeros_like(places), 0.2
    for k in range(places.numel()):
        ends = []
        for sign in (1.0, -1.0):
            twin = copy.deepcopy(net)
            twin.input.delay.post_positions.data.view(-1)[k] += sign * step
            ends.append(float(times(twin).detach().sum()))
        wanted.view(-1)[k] = (ends[0] - ends[1]) / (2 * step)
    cosine = torch.nn.functional.cosine_similarity(found.flatten(), wanted.flatten(), dim=0)
    assert float(cosine) > 0.999 and float((found - wanted).norm() / wanted.norm()) < 0.05


class Two(nn.Module):
    def __init__(self, last=2):
        super().__init__()
        self.a = LIF(PRE, SIZE, Spatial(2, pre="input", scale=2.0), name="a", factors=(150.0, 20.0), once=True)
        self.b = LIF(SIZE, 3, Spatial(last, pre="a", scale=2.0), False, name="b", factors=(40.0, 0.0), once=True)

    def forward(self, spikes):
        first = self.a(spikes)
        return self.b(first.spikes, first.clock)


def test_layers_share_the_population_between_them() -> None:
    torch.manual_seed(2)
    net = share_positions_(Two())
    assert net.b.input.delay.pre_positions is net.a.input.delay.post_positions is net.a.recurrent.delay.pre_positions
    assert {k: len(v) for k, v in populations(net).items()} == {"input": PRE, "a": SIZE, "b": 3}
    twin = copy.deepcopy(net)
    assert twin.b.input.delay.pre_positions is twin.a.recurrent.delay.post_positions
    run = net.float()(SPIKES.float())
    assert run.spikes.detach().sum(0).max() == 1, "once"
    first_spike_times(run.spikes, run.clock, silent=float(TIME)).sum().backward()
    optimizer = torch.optim.Adam(spatial_param_groups(net, 1e-3))
    before = net.a.input.delay.post_positions.detach().clone()
    optimizer.step()
    assert not torch.equal(before, net.a.input.delay.post_positions)
    with pytest.raises(dk.ConfigError, match="population 'a'"):
        share_positions_(Two(last=3))


def test_numbers_of_the_neuron_are_in_ms_and_the_step_reaches_the_delays() -> None:
    net = AdEx(2, 2, Spatial(2), neuron=ExactAdEx(8.0, 3.0, dt=0.25))
    assert net.input.delay.dt_ms == net.recurrent.delay.dt_ms == 0.25
    with pytest.raises(dk.ConfigError, match="dt_ms"):
        LIF(2, 2, Spatial(2, dt_ms=1.0), dt_ms=0.5)


def test_what_cannot_run_is_refused() -> None:
    net = layer()
    with pytest.raises(dk.ShapeError, match="hidden.input"):
        net(SPIKES[..., :3])
    with pytest.raises(dk.ConfigError, match="estimator"):
        layer(estimator="adjoint")
    with pytest.raises(dk.ConfigError, match="once"):
        layer(estimator="interp", once=True)
    net.recurrent.delay.post_positions.data[0] = math.nan
    with pytest.raises(dk.DelayRangeError, match="population 'hidden'"):
        net(SPIKES)
