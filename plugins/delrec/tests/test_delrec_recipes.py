"""Recipes of the papers, histories and pictures, neurons of both libraries, and the accuracy of the running sums."""

from __future__ import annotations

import math

import matplotlib
import norse.torch as norse
import pytest
import snntorch as snn
import torch
from torch import nn

import delaykit as dk
from delaykit.arrivals import Triangle
from delaykit.functional.delay_line import delay_line
from delaykit.functional.dynamics import LIFDynamics
from delaykit.functional.recurrence import rollout
from delaykit.interfaces import Site
from delaykit_delrec import (
    RECIPES,
    DelayHistory,
    DelRec,
    bounds_curve,
    delay_evolution,
    movement_curve,
    spread_curve,
)
from delaykit_delrec import plugin as entry

matplotlib.use("Agg")


def wrapped_net() -> nn.Sequential:
    net = nn.Sequential(nn.Linear(6, 4))
    rule = dk.At(DelRec(max_delay=10, sigma=2.0), reset="manual")
    return dk.wrap_(net, {"0": rule}, example=torch.ones(1, 6), generator=torch.Generator().manual_seed(0))


def rates(name: str, epochs: int) -> list[tuple[float, float]]:
    recipe, net = RECIPES[name], wrapped_net()
    optimizer = recipe.make_optimizer(net)
    scheduler = recipe.make_scheduler(optimizer, epochs)
    found = []
    for _ in range(epochs):
        found.append(tuple(group["lr"] for group in optimizer.param_groups))
        optimizer.step()
        scheduler.step()
    return found


def test_rates_are_the_papers() -> None:
    weights, delays = zip(*rates("ssc", 100), strict=True)
    assert max(weights) == pytest.approx(1e-3, rel=1e-3) and max(delays) == pytest.approx(5e-2, rel=1e-3)
    assert weights.index(max(weights)) == 30 and weights[0] == pytest.approx(4e-5) and weights[-1] < 2e-6
    weights, delays = zip(*rates("dcls", 100), strict=True)
    assert weights[0] == pytest.approx(1e-3) and max(weights) == pytest.approx(5e-3, rel=1e-3)
    assert delays == pytest.approx([0.1 * 0.5 * (1 + math.cos(math.pi * e / 100)) for e in range(100)])
    weights, delays = zip(*rates("shd", 50), strict=True)
    assert (weights[0], delays[0]) == (5e-3, 5e-2) and weights[25] == pytest.approx(2.5e-3)


def test_delays_have_no_weight_decay_and_are_projected() -> None:
    net = wrapped_net()
    optimizer = RECIPES["psmnist"].make_optimizer(net)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [1e-2, 0.0]
    net[0].dk.delay.delay.data.fill_(99.0)
    optimizer.step()
    assert float(net[0].dk.delay.delay.detach().max()) == 10


def test_a_history_tells_movement_bounds_and_spread_and_can_be_drawn() -> None:
    net, history = wrapped_net(), DelayHistory()
    history.record(net)
    with torch.no_grad():
        net[0].dk.delay.delay.copy_(torch.tensor([0.0, 0.0, 10.0, 5.0, 5.0, 5.0]))
    dk.advance_(net, 0.5)
    history.record(net)
    (site,) = history.delays
    before, after = history.delays[site]
    assert history.movement(site) == [pytest.approx(float((after - before).abs().mean()))]
    assert history.at_bounds(site)[1] == pytest.approx(0.5)
    assert history.spreads[site] == [2.0, pytest.approx(2 * 0.95**50)]
    for draw, label in (
        (lambda: delay_evolution(history, site), "delay (steps)"),
        (lambda: spread_curve(history), "spread (steps)"),
        (lambda: movement_curve(history), "mean |Δd| per epoch (steps)"),
        (lambda: bounds_curve(history), "delays at a bound (%)"),
    ):
        ax = draw()
        assert ax.get_xlabel() == "epoch" and ax.get_ylabel() == label
        matplotlib.pyplot.close(ax.figure)
    with pytest.raises(dk.ConfigError):
        history.record(nn.Linear(2, 2))


STEPS, SIZE = 12, 5


def snntorch_neuron(name: str) -> nn.Module:
    common = {"beta": 0.8, "threshold": 0.3}
    return {
        "Leaky": lambda: snn.Leaky(**common, init_hidden=True),
        "Synaptic": lambda: snn.Synaptic(alpha=0.6, **common, init_hidden=True),
        "RLeaky": lambda: snn.RLeaky(**common, linear_features=SIZE, init_hidden=True),
    }[name]()


@pytest.mark.parametrize("name", ["Leaky", "Synaptic", "RLeaky"])
def test_any_snntorch_neuron_takes_a_learned_recurrent_delay(name: str) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(SIZE, SIZE), snntorch_neuron(name))
    config = DelRec(max_delay=4, sigma=1.0, init=1.5)
    rules = {"1.recurrent": config} if name == "RLeaky" else {"1": dk.Recurrent(config)}
    dk.wrap_(net, rules, example=torch.rand(2, SIZE))
    check_learns(net, lambda: [net(x) for x in torch.rand(STEPS, 2, SIZE) * 2])


@pytest.mark.parametrize("cell", ["LSNNRecurrentCell", "LIFAdExRecurrentCell", "LIFRecurrentCell"])
def test_any_norse_cell_takes_a_learned_recurrent_delay(cell: str) -> None:
    torch.manual_seed(0)
    net = getattr(norse, cell)(SIZE, SIZE, dt=0.01)
    dk.wrap_(net, {"recurrent": DelRec(max_delay=4, sigma=1.0, init=1.5)}, example=torch.rand(2, SIZE))

    def run() -> list[torch.Tensor]:
        state, spikes = None, []
        for x in torch.rand(STEPS, 2, SIZE) * 20:
            spike, state = net(x, state)
            spikes.append(spike + state.v)
        return spikes

    check_learns(net, run)


def check_learns(net: nn.Module, run) -> None:
    (delay,) = [module for module in net.modules() if isinstance(module, dk.PointDelay)]
    out = torch.stack(run())
    out.sum().backward()
    assert delay.delay.grad is not None and bool(delay.delay.grad.any()), "no gradient reaches the delays"
    assert torch.isfinite(delay.delay.grad).all()


def test_running_sums_do_not_drift_over_2000_steps() -> None:
    """The running sums are kept in float64: after 2000 steps the error is still one rounding to float32."""
    generator = torch.Generator().manual_seed(0)
    spikes = (torch.rand(2000, 2, 16, generator=generator) < 0.2).float()
    delays = torch.rand(1, 16, generator=generator) * 25
    taps = Triangle(10.0).taps(delays)
    assert taps.order == 2, "this is not the path by running sums"
    exact = delay_line(spikes.double(), Triangle(10.0).taps(delays.double()))
    error = (delay_line(spikes, taps).double() - exact).abs()
    assert float(error[1000:].max()) < 5e-7 and float(error.max()) < 5e-7 and float(exact.max()) > 0.2


def test_axonal_delays_cost_one_product_a_step_at_any_spread() -> None:
    """What the connection reads for each step does not grow with sigma: six second differences at most."""
    site = Site("recurrent", 8, 8, recurrent=True)
    for sigma in (3.0, 10.0, 200.0):
        delay = DelRec(sigma=sigma).build(site, torch.Generator().manual_seed(0))
        taps = delay.kernel().taps(delay.delays())
        assert taps.shape == (1, 8) and int((taps.value != 0).sum(0).max()) <= 6
        neuron = LIFDynamics(decay=0.5, surrogate=lambda v: (v > 0).to(v.dtype))
        rollout(torch.rand(5, 1, 8), torch.eye(8), None, taps, neuron)


def test_both_components_are_registered_with_their_papers() -> None:
    records = {record.name: record for record in entry.delaykit_components()}
    assert set(records) == {"delrec", "dcls"} and "2509.24852" in dk.citation(DelRec())
