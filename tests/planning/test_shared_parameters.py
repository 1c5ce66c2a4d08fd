"""Delays meet before they are attached: they may share parameters or refuse, and the model is whole either way."""

from __future__ import annotations

import copy
import dataclasses
from typing import ClassVar

import pytest
import torch
from torch import nn

import delaykit as dk
from delaykit.arrivals import Linear


@dataclasses.dataclass(frozen=True)
class Common(dk.ComponentConfig):
    """One delay for all connections of a group; two starts for one group are refused."""

    kind: ClassVar[str] = "delay"
    name: ClassVar[str] = "common"
    group: str = "all"
    start: float = 1.0

    def build(self, site, generator=None):
        return CommonDelay(self)


class CommonDelay(dk.PointDelay):
    granularity = "layer"

    def __init__(self, config):
        super().__init__()
        self.config, self.delay = config, nn.Parameter(torch.tensor(config.start))

    def delays(self):
        return self.delay.reshape(1, 1)

    def kernel(self):
        return Linear()

    def meet_(self, earlier):
        for other in earlier:
            if isinstance(other, CommonDelay) and other.config.group == self.config.group:
                if other.config != self.config:
                    raise dk.ConfigError(self.config.group, f"{self.config.start}", f"{other.config.start}")
                self.delay = other.delay


def chain():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 3), nn.Linear(3, 2))


def rules(**groups):
    return {k[1:]: dk.At(Common(*g), reset="manual") for k, g in groups.items()}


def delays(net):
    return [site.synapse.delay.delay for site in dk.wrapped_sites(net)]


def test_one_parameter_is_trained_once_and_moves_every_connection() -> None:
    net = dk.wrap_(chain(), rules(_0=("a",), _1=("b",), _2=("a",)))
    first, other, last = delays(net)
    assert first is last and other is not first
    assert [len(group["params"]) for group in dk.param_groups(net, lr=0.1)] == [6, 2]
    net(torch.ones(1, 3)).sum().backward()
    assert first.grad is not None


def test_copies_share_among_themselves_and_with_nobody_else() -> None:
    net = dk.wrap_(chain(), rules(_0=("a",), _2=("a",)))
    for twin in (copy.deepcopy(net), dk.wrap(chain(), rules(_0=("a",), _2=("a",)))):
        first, last = delays(twin)
        assert first is last and first is not delays(net)[0]


def test_a_later_wrap_meets_the_delays_of_an_earlier_one() -> None:
    net = dk.wrap_(chain(), rules(_0=("a",)))
    before = delays(net)[0]
    dk.wrap_(net, rules(_2=("a",)))
    assert all(delay is before for delay in delays(net))


def test_unwrapping_drops_the_sharing() -> None:
    net = dk.wrap_(chain(), rules(_0=("a",), _2=("a",)))
    dk.unwrap_(net)
    assert not [key for key in net.state_dict() if "dk" in key]
    dk.wrap_(net, rules(_0=("a", 2.0), _2=("b", 3.0)))
    assert [delay.item() for delay in delays(net)] == [2.0, 3.0]


@pytest.mark.parametrize("already", [False, True])
def test_a_refusal_is_an_issue_of_the_plan_and_leaves_the_model_as_it_was(already: bool) -> None:
    net = chain()
    if already:
        dk.wrap_(net, rules(_0=("a",)))
    state = {name: (id(m), type(m)) for name, m in net.named_modules()}
    quarrel = rules(_2=("a", 5.0)) if already else rules(_0=("a",), _2=("a", 5.0))
    plan = dk.plan(net, quarrel)
    assert len(plan.issues) == 1 and isinstance(plan.issues[0], dk.ConfigError)
    with pytest.raises(dk.WrapError, match="5.0"):
        dk.wrap_(net, quarrel)
    assert state == {name: (id(m), type(m)) for name, m in net.named_modules()}
