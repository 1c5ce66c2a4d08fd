"""``compact_`` and the parts of other plugins: delays that are no parameters become sparse, time constants do not."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import pytest
import torch
from torch import nn

import delaykit as dk
from delaykit.arrivals import Linear, Triangle
from delaykit.interfaces import ComponentConfig, Heterogeneity, PointDelay
from delaykit_sparsify import CompactLinear, DynamicSparsity, compact_

TOLERANCE = {"rtol": 1e-12, "atol": 1e-12}


class Distance(PointDelay):
    """Delays are distances between two sets of places: three numbers a neuron, none a synapse."""

    granularity = "synaptic"

    def __init__(self, pre, post, spread):
        super().__init__()
        self.pre, self.post = (nn.Parameter(3 * torch.rand(n, 3)) for n in (pre, post))
        self.spread = spread

    def delays(self):
        return (self.post.unsqueeze(1) - self.pre).norm(dim=-1)

    def kernel(self):
        return Triangle(torch.tensor(self.spread)) if self.spread else Linear()


class Lasting(Heterogeneity):
    """One time constant for all."""

    def decay(self):
        return torch.full((1, 1), 0.5)


@dataclasses.dataclass(frozen=True)
class DistanceConfig(ComponentConfig):
    """Make a :class:`Distance`."""

    kind: ClassVar = "delay"
    name: ClassVar = "distance"
    spread: float = 0.0

    def build(self, site, generator=None):
        return Distance(site.pre, site.post, self.spread)


@dataclasses.dataclass(frozen=True)
class LastingConfig(ComponentConfig):
    """Make a :class:`Lasting`."""

    kind: ClassVar = "heterogeneity"
    name: ClassVar = "lasting"

    def build(self, site, generator=None):
        return Lasting()


def spikes(*shape):
    return (torch.rand(*shape, generator=torch.Generator().manual_seed(3)) < 0.3).double()


@pytest.mark.parametrize("spread", [0.0, 1.5])
@pytest.mark.parametrize("time_dim", [None, 0])
def test_delays_that_come_from_places(spread, time_dim):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(14, 11))
    reset = "manual" if time_dim is None else "root"
    rule = dk.At(DistanceConfig(spread), DynamicSparsity(0.9), time_dim=time_dim, reset=reset)
    dk.wrap_(net, {"0": rule})
    net.double()
    dk.advance_(net, 1.0)

    def run():
        dk.reset(net)
        x = spikes(20, 3, 14)
        return net(x) if time_dim == 0 else torch.stack([net(now) for now in x])

    with torch.no_grad():
        before = run()
        (report,) = compact_(net).connections
        torch.testing.assert_close(run(), before, **TOLERANCE)
    assert not report.reason and report.kept == 16 and not list(net[0].dk.parameters())
    assert bool((before != before[:, :, :1]).any())


def test_a_recurrent_layer_with_places_in_a_rollout():
    snn = pytest.importorskip("snntorch", reason="needs snnTorch, the extra `snntorch`")
    torch.manual_seed(0)
    net = nn.Sequential(snn.RLeaky(beta=0.8, linear_features=30, init_hidden=True))
    dk.wrap_(net, {"0.recurrent": dk.At(DistanceConfig(), DynamicSparsity(0.9), reset="follow")})
    net.double()
    dk.advance_(net, 1.0)
    drive = torch.rand(25, 3, 30, generator=torch.Generator().manual_seed(4)).double() * 0.5
    with torch.no_grad():
        wanted = dk.rollout(net[0], drive)
        assert not compact_(net).connections[0].reason
        for now, then in zip(dk.rollout(net[0], drive), wanted, strict=True):
            torch.testing.assert_close(now, then, **TOLERANCE)
    assert 0.02 < float(wanted[0].mean()) < 0.6


def test_lasting_currents_are_left_dense_and_alone():
    net = nn.Sequential(nn.Linear(14, 11)).double()
    dk.wrap_(net, {"0": dk.At(LastingConfig(), DynamicSparsity(0.9), time_dim=0, reset="root")})
    dk.advance_(net, 1.0)
    with torch.no_grad():
        before = net(spikes(20, 3, 14))
        (report,) = compact_(net).connections
        assert torch.equal(net(spikes(20, 3, 14)), before)
    assert "time constant" in report.reason and not isinstance(net[0], CompactLinear)
    assert bool(net[0].weight.isfinite().all())
