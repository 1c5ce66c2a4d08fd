"""Where ``dk.fused`` takes the time loop of a model to be, and what it says where an example leaves that open."""

from __future__ import annotations

from typing import Any

import norse.torch as norse
import pytest
import snntorch as snn
import torch
from fused_cases import HIDDEN, OUT, PRE, TIME, TwoLayers, ahead_in, assert_equal_runs, leaky, loud, spikes
from snntorch import utils
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

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


class Whole(nn.Module):
    """It holds no loop: one of its layers takes the sequence."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.fc, self.kind = nn.Linear(PRE, HIDDEN), kind
        self.over = {"norse": norse.LIF, "norse recurrent": lambda: norse.LIFRecurrent(HIDDEN, HIDDEN),
                     "gru": lambda: nn.GRU(HIDDEN, HIDDEN), "none": nn.Tanh}[kind]()  # fmt: skip
        self.lif = leaky() if kind == "gru" else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        output = self.over(self.fc(x))
        output = output[0] if isinstance(output, tuple) else output
        if self.kind == "none":
            return output.cumsum(0)
        return self.lif(output[-1], torch.zeros_like(output[-1]))[1] if self.kind == "gru" else output


@pytest.mark.parametrize("check", ["first", "always"])
@pytest.mark.parametrize("kind", ["norse", "norse recurrent", "gru", "none"])
def test_a_model_that_takes_whole_sequences_is_called_with_them(kind: str, check: Any) -> None:
    net = loud(Whole(kind))
    fast = dk.fused(net, example=spikes(), check=check)
    assert fast.loop == "inside"
    assert_equal_runs(net, fast, net, spikes(TIME + 3, 2))


class Windows(TwoLayers):
    """Its loop looks at three inputs at once."""

    def forward(self, x: Tensor) -> Tensor:
        mem, rec = self.lif1.reset_mem(), []
        for t in range(2, len(x)):
            _, mem = self.lif1(self.fc1(x[t - 2 : t + 1].mean(0)), mem)
            rec.append(mem)
        return torch.stack(rec)


@pytest.mark.parametrize("steps", [1, 2])
def test_a_sequence_too_short_for_the_loop_tells_nothing_of_later_ones(steps: int) -> None:
    net = loud(Windows())
    fast = dk.fused(net)
    with pytest.raises(RuntimeError, match="non-empty TensorList"):
        fast(spikes(steps, 3))
    assert_equal_runs(net, fast, net, spikes())


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad])
@pytest.mark.parametrize("example", [True, False])
@pytest.mark.parametrize("wrapped", [True, False])
@pytest.mark.parametrize("sequential", [True, False])
def test_a_proof_can_fall_into_an_evaluation(mode: Any, example: bool, wrapped: bool, sequential: bool) -> None:
    layers = (nn.Linear(PRE, HIDDEN), leaky(init_hidden=True))
    net = loud(nn.Sequential(*layers) if sequential else TwoLayers())
    loop = (lambda x: torch.stack([net(step) for step in x])) if sequential else net
    if wrapped:
        dk.wrap_(net, {"*": dk.FreeDelay("axonal", max_delay=4, init=1.5)}, example=lambda: loop(spikes()))
    fast = dk.fused(net, example=spikes() if example else None)
    net.eval()
    with mode():
        found = [fast(spikes()), fast(spikes() * 1)]
    if sequential:
        utils.reset(net)
    with torch.no_grad():
        wanted = loop(spikes())
    for one in found:
        torch.testing.assert_close(one, wanted, rtol=1e-5, atol=1e-6)
    net.train()
    if sequential:
        utils.reset(net)
    tree_leaves(fast(spikes()))[0].sum().backward()
