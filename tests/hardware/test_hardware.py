"""Budgets: delays on a grid and under a cap, weights of so many bits, all or nothing, and what it costs."""

from __future__ import annotations

import pytest
import torch

import delaykit as dk
from delaykit.hardware import TARGETS


def net_of(*inits, granularity="axonal", most=90.0, **options):
    net = torch.nn.Sequential(*(torch.nn.Linear(3, 3) for _ in inits))
    rules = {
        str(k): dk.At(dk.FreeDelay(granularity, max_delay=most, init=init, **options), reset="manual")
        for k, init in enumerate(inits)
    }
    return dk.wrap_(net, rules)


def test_a_grid_under_a_cap_while_the_block_lasts():
    net = net_of([0.9, 33.2, 80.0])
    for options, wanted in (
        ({}, [1.0, 33.0, 80.0]),
        ({"max_delay": 62}, [1.0, 33.0, 62.0]),
        ({"max_delay": 62, "bits": 5}, [1.0, 31.0, 31.0]),
        ({"step": 4, "max_delay": 62}, [0.0, 32.0, 60.0]),
        ({"step": 2, "bits": 5}, [0.0, 32.0, 62.0]),  # whole steps first, and then 33 / 2 = 16.5 to the even 16
    ):
        with dk.discretized(net, **options):
            found = dk.status(net).delays["0"].flatten().tolist()
        assert found == wanted, options
    assert dk.status(net).delays["0"].flatten().tolist() == pytest.approx([0.9, 33.2, 80.0])


@pytest.mark.parametrize("options", [{"step": 0}, {"step": 1.5}, {"max_delay": -1}, {"bits": 0}, {"weight_bits": 1}])
def test_budgets_that_are_none(options):
    net = net_of([0.9, 3.2, 8.0])
    with pytest.raises(dk.ConfigError, match=next(iter(options))), dk.discretized(net, **options):
        pass
    assert dk.status(net).delays["0"].flatten().tolist() == pytest.approx([0.9, 3.2, 8.0])


def test_weights_of_few_bits_while_the_block_lasts():
    net = net_of([0.9, 3.2, 8.0], [1.0, 2.0, 3.0])
    real = [p.detach().clone() for p in net.parameters()]
    unit = net[0].weight.detach().abs().max() / 7
    with dk.discretized(net, weight_bits=4):
        inside = net[0].weight.detach().clone()
        assert torch.equal(net[0].bias, real[[n for n, _ in net.named_parameters()].index("0.bias")])
    torch.testing.assert_close(inside / unit, (inside / unit).round(), rtol=0, atol=1e-5)
    assert 4 < len(inside.unique()) <= 9 and float((inside - real[0]).abs().max()) <= float(unit) / 2 * 1.001
    assert all(torch.equal(now, before) for now, before in zip(net.parameters(), real, strict=True))


def test_a_whole_budget_is_trained_straight_through():
    """Forward and backward inside, the step behind: what fitting does for good then changes nothing any more."""
    torch.manual_seed(0)
    net = net_of([0.9, 3.2, 8.4])
    optimizer = torch.optim.SGD(dk.param_groups(net, lr=0.3, delay_lr=3.0))
    dk.attach(optimizer, net)
    x, budget = (torch.rand(25, 4, 3) < 0.4).float(), {"max_delay": 6, "weight_bits": 4}
    wanted = x[4:]
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        before = [p.detach().clone() for p in net.parameters()]
        dk.reset(net)  # a sequence begins; no block empties a line
        with dk.discretized(net, **budget):
            loss = (torch.stack([net(step) for step in x])[4:] - wanted).square().mean()
            loss.backward()
        assert all(torch.equal(now, old) for now, old in zip(net.parameters(), before, strict=True))
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0] and float(net[0].dk.delay.delay.grad.abs().sum()) > 0
    dk.reset(net)
    with torch.no_grad(), dk.discretized(net, **budget):
        inside = torch.stack([net(step) for step in x])
    dk.fit_hardware_(net, dk.hardware.Target("mine", max_delay=6, weight_bits=4))
    dk.reset(net)
    assert torch.equal(torch.stack([net(step) for step in x]), inside)


def test_a_report_says_what_was_clipped_and_rounded():
    net = net_of([0.9, 33.0, 80.0], [1.0, 2.0, 3.0])
    before = net[0].weight.detach().clone()
    report = dk.fit_hardware_(net, "loihi", score=lambda net: float(dk.status(net).delays["0"].max()))
    first, second = report.sites
    assert (first.delays, first.moved, first.clipped, first.line) == (3, 2, 1, 1 + 33 + 62)
    assert first.shift == 18.0 and (report.before, report.after) == (80.0, 62.0)
    assert (second.moved, second.clipped, second.shift) == (0, 0, 0.0)
    unit = before.abs().max() / 127
    assert 0 < first.weight_error <= float(unit) / 2 * 1.001
    assert len((net[0].weight / unit).round().unique()) <= 9 and torch.allclose(
        (net[0].weight / unit).round() * unit, net[0].weight
    )
    assert first.deliveries == 3.0 and first.arrivals == 1.0 and "clipped" in str(report)


def test_axonal_against_synaptic_lines():
    net = net_of([[1.0, 2.0, 0.0], [1.0, 5.0, 0.0], [4.0, 9.0, 0.0]], granularity="synaptic")
    site = dk.fit_hardware_(net, dk.Target("mine", 62)).sites[0]
    assert site.line == 4 + 9 + 0 and site.arrivals == pytest.approx((2 + 3 + 1) / 3) and site.weight_error == 0.0


def test_all_or_nothing():
    class Stubborn(dk.PointDelay):
        granularity = "layer"

        def delays(self):
            return torch.tensor([[7.0]])

        def kernel(self):
            return dk.kernels.Linear()

    net = net_of([0.9, 33.0, 80.0], [1.0, 2.0, 3.0])
    net[1].dk.delay = Stubborn()
    weight = net[0].weight.detach().clone()
    with pytest.raises(dk.ConfigError, match="cannot be moved"):
        dk.fit_hardware_(net, dk.Target("mine", 5, weight_bits=4))
    assert torch.equal(net[0].weight, weight)
    assert dk.status(net).delays["0"].flatten().tolist() == pytest.approx([0.9, 33.0, 80.0])


def test_targets_are_named_with_their_source():
    assert all(target.source for target in TARGETS.values())
    with pytest.raises(dk.ConfigError, match="loihi"):
        dk.fit_hardware_(net_of([1.0, 1.0, 1.0]), "loihi9")
