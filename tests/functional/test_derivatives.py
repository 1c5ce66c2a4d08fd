"""A backward written by hand gives first derivatives; a second one raises, wherever it is asked for."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import snntorch as snn
import torch
from torch import Tensor, nn

import delaykit as dk
from delaykit import HistoryError
from delaykit.functional.derivatives import DIFFERENCES, first_only
from delaykit.functional.dispatch import chosen
from delaykit.testing.faults.second_derivatives import check_second_derivatives


class Cube(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor) -> Tensor:
        ctx.save_for_backward(x, scale)
        return scale * x**3

    @staticmethod
    @first_only("cube", DIFFERENCES)
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None]:
        x, scale = ctx.saved_tensors
        return 3 * scale * x**2 * grad, None


def test_the_first_derivative_is_that_of_the_backward() -> None:
    x = torch.tensor([1.0, 2.0], dtype=torch.float64, requires_grad=True)
    (plain,) = torch.autograd.grad(Cube.apply(x, torch.tensor(2.0)).sum(), x)
    (graphed,) = torch.autograd.grad(Cube.apply(x, torch.tensor(2.0)).sum(), x, create_graph=True)
    assert plain.tolist() == graphed.tolist() == [6.0, 24.0]


@pytest.mark.parametrize("penalty", [lambda g: g.sum(), lambda g: (g**2).sum(), lambda g: g[0]])
def test_a_second_one_raises_where_torch_would_give_zero(penalty: Any) -> None:
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    (grad,) = torch.autograd.grad(Cube.apply(x, torch.tensor(2.0)).sum(), x, create_graph=True)
    with pytest.raises(HistoryError, match="cube: found second derivatives.*differences of first derivatives"):
        penalty(grad).backward()


def recurrent() -> tuple[list[Tensor], Any]:
    torch.manual_seed(0)
    neuron = snn.RLeaky(beta=0.9, linear_features=3, threshold=0.4).double()
    dk.wrap_(neuron, {"recurrent": dk.At(dk.FreeDelay("axonal", max_delay=3, init=1.3), reset="manual")})
    x, delay = torch.rand(6, 2, 3).double().requires_grad_(), neuron.recurrent.dk.delay.delay
    return [x, neuron.recurrent.weight, delay], lambda: dk.rollout(neuron, x)[1]


def fused() -> tuple[list[Tensor], Any]:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), snn.Leaky(beta=0.9, threshold=0.4, init_hidden=True, output=True)).double()
    x = torch.rand(6, 2, 3).double()
    fast = dk.fused(net, example=x)
    return [x.requires_grad_(), net[0].weight], lambda: fast(x)[1]


def sequence(granularity: str, options: dict[str, Any]) -> tuple[list[Tensor], Any]:
    net = nn.Sequential(nn.Linear(3, 4)).double()
    config = dk.FreeDelay(granularity, max_delay=9, init="uniform", **options)
    dk.wrap_(net, {"0": dk.At(config, time_dim=0, reset="root")}, generator=torch.Generator().manual_seed(0))
    x = (torch.rand(14, 2, 3) < 0.4).double().requires_grad_()
    return [x, net[0].weight, net[0].dk.delay.delay], lambda: net(x)


SHAPES: dict[str, dict[str, Any]] = {
    "linear": {},
    "triangle": {"kernel": "triangle", "spread": 5.0},
    "gaussian": {"kernel": "gaussian", "spread": 2.0},
}
OPERATORS = {"rollout": recurrent, "fused": fused} | {
    f"{granularity} {shape}": functools.partial(sequence, granularity, options)
    for granularity in ("axonal", "dendritic", "synaptic")
    for shape, options in SHAPES.items()
}


@pytest.mark.parametrize("name", OPERATORS)
def test_every_second_derivative_is_the_references_or_raises(name: str) -> None:
    leaves, run = OPERATORS[name]()
    check_second_derivatives(run, leaves)


def test_a_second_derivative_that_is_lost_on_the_way_is_found() -> None:
    class Lost(Cube):
        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
            with torch.no_grad():
                return 3 * ctx.saved_tensors[1] * ctx.saved_tensors[0] ** 2 * grad, None

    x = torch.tensor([1.0, 2.0], dtype=torch.float64, requires_grad=True)
    scale = torch.tensor(2.0, dtype=torch.float64)
    run = lambda: scale * x**3 if chosen() == "reference" else Lost.apply(x, scale)  # noqa: E731
    with pytest.raises(AssertionError, match="not close"):
        check_second_derivatives(run, [x])
