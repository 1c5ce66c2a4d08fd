"""What the author of a component is told when its methods return something else than the interface says."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import pytest
import torch
from torch import nn

import delaykit as dk
from delaykit.arrivals import Linear


class Point(dk.PointDelay):
    granularity = "axonal"

    def __init__(self, values):
        super().__init__()
        self.values = nn.Parameter(values)

    def delays(self):
        return self.values

    def kernel(self):
        return Linear()


class Response(dk.Delay):
    def __init__(self, respond):
        super().__init__()
        self.respond = respond

    def impulse_response(self, weight):
        return self.respond(weight)


def run(make, kind="delay"):
    @dataclasses.dataclass(frozen=True)
    class Mine(dk.ComponentConfig):
        name: ClassVar[str] = "mine"

        def build(self, site, generator=None):
            return make()

    Mine.kind = kind
    net = nn.Sequential(nn.Linear(6, 5))
    dk.wrap_(net, {"0": dk.At(Mine(), reset="manual")})
    return net(torch.rand(4, 6))


def test_what_the_interface_says_runs():
    assert run(lambda: Point(torch.rand(1, 6))).shape == (4, 5)
    assert run(lambda: Response(lambda weight: torch.stack([weight, weight], -1))).shape == (4, 5)


@pytest.mark.parametrize(
    ("kind", "wanted"), [("delay", "a Delay"), ("heterogeneity", "a Heterogeneity"), ("pruning", "a Pruning")]
)
@pytest.mark.parametrize("part", [None, nn.Linear(1, 1)], ids=["None", "a module"])
def test_build_must_return_a_part_of_its_kind(kind, wanted, part):
    with pytest.raises(dk.WrapError, match=f"0: found Mine.build.*{kind}.*expected {wanted}"):
        run(lambda: part, kind)


@pytest.mark.parametrize("shape", [(6,), (), (1, 5, 6)])
def test_delays_are_two_dimensional(shape):
    with pytest.raises(dk.ShapeError, match=r"Point.delays\(\): found shape .*\(1, pre\)"):
        run(lambda: Point(torch.rand(shape)))


@pytest.mark.parametrize("respond", [lambda w: w, lambda w: torch.stack([w.t(), w.t()], -1)], ids=["2-d", "turned"])
def test_a_response_is_post_pre_depth(respond):
    with pytest.raises(dk.ShapeError, match=r"Response.impulse_response\(\): found shape .*\(5, 6, depth\)"):
        run(lambda: Response(respond))
