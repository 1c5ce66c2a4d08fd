"""Where ``dk.fused`` takes the time loop of a model to be, and what it says where an example leaves that open."""

from __future__ import annotations

from typing import Any

import pytest
import snntorch as snn
import torch
from fused_cases import HIDDEN, OUT, PRE, TIME, TwoLayers, ahead_in, assert_equal_runs, leaky, loud, spikes
from torch import Tensor, nn

import delaykit as dk


class TwoSamples(TwoLayers):
    """It compares two samples of a batch; ``where`` says in which part of its forward."""

    where = "loop"

    def between(self, t: int, spk: Tensor) -> Tensor:
        return spk - 0.5 * (spk[0] * spk[1]) if self.where == "loop" else spk

    def forward(self, x: Tensor) -> Any:
        if self.where == "before":
            x = x - 0.5 * x[:, :1] * x[:, 1].unsqueeze(1)
        if self.where == "first":
            x[0, 1].sum()
        return super().forward(x)


class Stacked(TwoSamples):
    """The same, and its loop unbinds, splits, or takes slices of steps with the batch in front."""

    cut = "unbind"

    def forward(self, x: Tensor) -> Any:
        steps = {
            "unbind": lambda: x.unbind(0),
            "split": lambda: [part.squeeze(0) for part in x.split(1)],
            "batch first": lambda: [x.transpose(0, 1)[:, t] for t in range(len(x))],
        }[self.cut]()
        mem1, mem2, rec = self.lif1.reset_mem(), self.lif2.reset_mem(), []
        for t, step in enumerate(steps):
            spk1, mem1 = self.lif1(self.fc1(step), mem1)
            spk2, mem2 = self.lif2(self.fc2(self.between(t, spk1)), mem2)
            rec.append(spk2 + mem2)
        return torch.stack(rec)


@pytest.mark.parametrize("steps", [1, TIME])
@pytest.mark.parametrize("where", ["loop", "before", "first"])
def test_an_example_that_the_model_refuses_gives_the_error_of_the_model(where: str, steps: int) -> None:
    net = loud(TwoSamples())
    net.where = where
    with pytest.raises(IndexError) as own:
        net(spikes(steps, 1))
    with pytest.raises(dk.ShapeError, match=f"example: found IndexError: {own.value}") as told:
        dk.fused(net, example=spikes(steps, 1))
    assert type(told.value.__cause__) is IndexError
    fast = dk.fused(net)
    with pytest.raises(type(own.value), match=str(own.value)):
        fast(spikes(steps, 1))
    assert_equal_runs(net, fast, net, spikes())
    assert "outside" not in str(fast)


@pytest.mark.parametrize("cut", ["unbind", "split", "batch first"])
def test_however_a_loop_takes_its_steps(cut: str) -> None:
    net = loud(Stacked())
    net.cut = cut
    with pytest.raises(dk.ShapeError, match="IndexError: index 1 is out of bounds"):
        dk.fused(net, example=spikes(TIME, 1))
    assert_equal_runs(net, dk.fused(net, example=spikes()), net, spikes())


def test_a_model_that_takes_neither_a_sequence_nor_a_step() -> None:
    net = nn.Sequential(nn.Linear(PRE + 1, OUT), leaky(init_hidden=True)).double()
    with pytest.raises(dk.ShapeError, match="RuntimeError: .*shapes cannot be multiplied") as caught:
        dk.fused(net, example=spikes())
    assert not hasattr(RuntimeError, "add_note") or "called the model once a step" in str(caught.value)


def test_a_loop_that_is_taken_to_be_outside_is_told_and_why() -> None:
    """One call of the model takes the whole sequence in the first case, and none in the second."""
    plain = loud(nn.Sequential(nn.Linear(PRE, HIDDEN), leaky(init_hidden=True)))
    pooled = loud(nn.Sequential(nn.Conv2d(2, 3, 3), leaky(init_hidden=True), nn.MaxPool2d(2)))
    for net, x, why in (
        (plain, spikes(), "net(example) calls no neuron twice"),
        (pooled, spikes(TIME, 2, 2, 6, 6), "net(example) raises RuntimeError: Expected 3D"),
    ):
        fast = dk.fused(net, example=x)
        assert fast.loop == "outside" and ahead_in(fast) == set(fast.report())
        assert why in str(fast) and "loop='inside'" in str(fast)
        assert "taken" not in str(dk.fused(net, example=x, loop="outside"))


def test_one_step_of_a_loop_inside() -> None:
    """A sequence of one step calls each neuron once, wherever the loop is."""
    net = loud(TwoLayers())
    fast = dk.fused(net, example=spikes(1))
    assert fast.loop == "inside"
    assert_equal_runs(net, fast, net, spikes())
    cell = loud(nn.Sequential(nn.Linear(PRE, HIDDEN), snn.Leaky(beta=0.5, init_hidden=True)))
    assert dk.fused(cell, example=spikes(1)).loop == "outside"
