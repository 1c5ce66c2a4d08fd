"""What a model does between its layers counts for gradients, where values do not show it.

Numbers that come from sizes, from the step, from data or anywhere, functions of its own, and switches of gradients.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from fused_cases import BATCH, EVERYWHERE, TIME, TwoLayers, ahead_in, assert_equal_runs, loud, spikes
from torch import Tensor, nn

import delaykit as dk
from delaykit.wrapping.fused import glue


def scaled(x: Tensor, factor: float) -> Tensor:
    return x.detach() + factor * (x - x.detach())


class Factor(TwoLayers):
    """The gradient of the first layer's spikes has a factor, which no value shows."""

    how, held = "", {"factor": 1.0}

    def factor(self, t: int) -> float:
        steps, batch, most = self.sizes
        return {
            "batch": 1 / batch, "time": 1 / steps, "late": 0.3 if t >= 12 else 1.0, "data": most,
            "held": self.held["factor"], "step": 1.0 + 0.1 * (t // 4),
        }[self.how]  # fmt: skip

    def between(self, t: int, spk: Tensor) -> Tensor:
        return scaled(spk, self.factor(t))

    def forward(self, x: Tensor) -> Any:
        most = float((x.detach() * torch.arange(1.0, x.shape[2] + 1)).sum(2).max())
        self.sizes = (*x.shape[:2], most)
        return super().forward(x)


class OnlyLate(Factor):
    """At the steps of an example nothing is done."""

    def between(self, t: int, spk: Tensor) -> Tensor:
        return spk if t < 12 else scaled(spk, 0.3)


class Power(Factor):
    def between(self, t: int, spk: Tensor) -> Tensor:
        return spk ** self.sizes[1]


class WithoutGradients(Factor):
    def between(self, t: int, spk: Tensor) -> Tensor:
        with torch.set_grad_enabled(t < 12):
            part = spk * 0.5
        return part + spk * 0.5


class Scale(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return x * 1.0

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return grad * ctx.factor, None


class OwnFunction(Factor):
    def between(self, t: int, spk: Tensor) -> Tensor:
        return Scale.apply(spk, 0.3 if t >= 12 else 1.0)


class LateOwnFunction(Factor):
    def between(self, t: int, spk: Tensor) -> Tensor:
        return Scale.apply(spk, 0.3) if t >= 12 else spk * 1.0


class CutInPlace(Factor):
    def between(self, t: int, spk: Tensor) -> Tensor:
        spk = spk * 1.0
        if t >= 12:
            spk[:, :2] = spk[:, :2].detach()
        return spk


class Quantised(Factor):
    """A learned step size between the layers, whose gradient is scaled by the number of values (Esser et al., 2020)."""

    def __init__(self) -> None:
        super().__init__()
        self.size = nn.Parameter(torch.tensor(0.3))

    def between(self, t: int, spk: Tensor) -> Tensor:
        size = scaled(self.size, (spk.numel() * 7) ** -0.5)
        divided = (spk / size).clamp(-8, 7)
        return ((divided.round() - divided).detach() + divided) * size


def made(cls: type[Factor], how: str = "", granularity: str = "") -> nn.Module:
    net = loud(cls())
    net.how = how
    if granularity:
        rule = {"fc*": dk.FreeDelay(granularity, max_delay=4)}
        dk.wrap_(net, rule, example=spikes(), generator=torch.Generator().manual_seed(2))
    return net


@pytest.mark.parametrize("granularity", ["", "axonal", "synaptic"])
@pytest.mark.parametrize("how", ["batch", "time", "data", "quantised"])
def test_numbers_that_sizes_and_data_give_are_those_of_the_run(how: str, granularity: str) -> None:
    net = made(Quantised if how == "quantised" else Factor, how, granularity)
    fast = dk.fused(net, example=spikes())
    for sizes in ((TIME, BATCH), (TIME + 10, BATCH), (TIME, 7), (TIME, 1)):
        assert_equal_runs(net, fast, net, spikes(*sizes))
        assert ahead_in(fast) == EVERYWHERE, str(fast)
    assert len(fast.known) == 1


LATE = {
    "late": (Factor, "late"), "step": (Factor, "step"), "only late": (OnlyLate, ""),
    "without gradients": (WithoutGradients, ""), "own function": (OwnFunction, ""),
    "late own function": (LateOwnFunction, ""), "cut in place": (CutInPlace, ""),
}  # fmt: skip


@pytest.mark.parametrize("granularity", ["", "axonal", "synaptic"])
@pytest.mark.parametrize("case", LATE)
def test_what_changes_behind_the_steps_of_the_example(case: str, granularity: str) -> None:
    net = made(*LATE[case], granularity)
    fast = dk.fused(net, example=spikes(3))
    for steps in (TIME, 20, 20):
        assert_equal_runs(net, fast, net, spikes(steps))


def test_powers_of_spikes_are_spikes() -> None:
    net = made(Power)
    fast = dk.fused(net, example=spikes())
    for batch in (BATCH, 2, 5):
        assert_equal_runs(net, fast, net, spikes(TIME, batch))


def test_a_factor_that_lies_in_a_dict_is_the_present_one() -> None:
    net = made(Factor, "held")
    fast = dk.fused(net, example=spikes())
    for factor in (1.0, 2.0, 0.25):
        net.held["factor"] = factor
        assert_equal_runs(net, fast, net, spikes())
    assert ahead_in(fast) == EVERYWHERE
    net.held["factor"] = 1.0


def test_the_comparison_can_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the numbers of the example in the place of the run's, as it was once."""
    monkeypatch.setattr(glue.Follower, "first", lambda self, recipe, given: recipe)
    monkeypatch.setattr(glue.Follower, "same", lambda *_: True)
    net = made(Factor, "batch")
    fast = dk.fused(net, example=spikes())
    with pytest.raises(AssertionError, match="not close"):
        assert_equal_runs(net, fast, net, spikes(TIME, 7))
