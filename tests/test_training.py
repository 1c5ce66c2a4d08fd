"""What a pruning is told: its synapse, the optimizer, all other prunings before a step, and each optimizer step."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import torch
from torch import nn

import delaykit as dk

LOG: list[tuple] = []


class Recording(dk.Pruning):
    def bind_(self, delay, heterogeneity):
        LOG.append(("bind", type(delay).__name__, heterogeneity))

    def attached_(self, optimizer):
        LOG.append(("attached", type(optimizer).__name__))

    def survey(self, pruned, progress):
        LOG.append(("survey", [tuple(weight.shape) for _, weight in pruned], progress))

    def step_(self, weight, progress):
        LOG.append(("step", tuple(weight.shape)))
        weight[0].zero_()
        return dk.PruningReport(weight.numel(), int(weight.count_nonzero()), weight.shape[1], 0, isolated=1)

    def project_(self, weight):
        LOG.append(("project", tuple(weight.shape)))
        weight[0].zero_()


@dataclasses.dataclass(frozen=True)
class Record(dk.ComponentConfig):
    kind: ClassVar[str] = "pruning"
    name: ClassVar[str] = "recording"

    def build(self, site, generator=None):
        return Recording()


def test_hooks_are_called_in_order_and_status_counts():
    LOG.clear()
    net = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 4))
    rule = dk.At(dk.FreeDelay("axonal"), Record(), reset="root", time_dim=0)
    dk.wrap_(net, {"*": rule})
    assert set(map(str, LOG)) == {"('bind', 'FreeDelayModule', None)"} and len(LOG) >= 2  # a plan tries the build, too
    LOG.clear()
    optimizer = torch.optim.SGD(dk.param_groups(net, lr=0.1))
    dk.attach(optimizer, net)
    assert LOG == [("attached", "SGD")] * 2 + [("project", (3, 2)), ("project", (4, 3))]
    LOG.clear()
    reports = dk.advance_(net, 0.5)
    both = [(3, 2), (4, 3)]
    assert LOG == [("survey", both, 0.5)] * 2 + [("step", (3, 2)), ("step", (4, 3))]
    assert reports["1"].isolated == 1
    net(torch.ones(5, 1, 2)).sum().backward()
    optimizer.step()
    assert not net[0].weight[0].any() and not net[1].weight[0].any()
    sites = dk.status(net).sites
    assert [(site.kept, site.weights) for site in sites] == [(4, 6), (9, 12)]
    assert "9/12" in str(dk.status(net))


def test_wrapped_sites_tell_where_the_weight_is():
    net = nn.Sequential(nn.Linear(2, 3))
    dk.wrap_(net, {"0": dk.At(Record(), reset="manual")})
    (site,) = dk.wrapped_sites(net)
    assert site.holder is net[0] and getattr(site.holder, site.parameter) is site.weight
