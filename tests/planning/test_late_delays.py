"""A plan says which delays are longer than its example, and delays in ms where the library knows its step."""

from __future__ import annotations

import warnings

import pytest
import snntorch as snn
import torch

import delaykit as dk


class Loop(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc, self.lif = torch.nn.Linear(6, 4), snn.Leaky(beta=0.9)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mem = self.lif.reset_mem()
        for step in x:
            spikes, mem = self.lif(self.fc(step), mem)
        return spikes


class Whole(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc, self.lif = torch.nn.Linear(6, 4), snn.Leaky(beta=0.9)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mem = self.lif.reset_mem()
        for current in self.fc(x):
            spikes, mem = self.lif(current, mem)
        return spikes


@pytest.mark.parametrize(("net", "options"), [(Loop, {}), (Whole, {"time_dim": 0})])
def test_delays_longer_than_the_example_draw_a_warning(net, options) -> None:
    rule = dk.At(dk.FreeDelay("synaptic", max_delay=200), **options)
    model = net()
    plan = dk.plan(model, {"fc": rule}, example=torch.zeros(10, 2, 6))
    (warning,) = plan.warnings
    share = int(warning.split("about ")[1].split(" %")[0])
    assert "fc" in warning and "10 steps" in warning and 85 <= share <= 100 and warning in str(plan)
    assert not plan.issues
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # who passes a plan has seen what it warns of
        dk.wrap_(model, plan)


@pytest.mark.parametrize("wrap", [dk.wrap_, dk.wrap])
def test_who_wraps_without_a_plan_is_warned_once(wrap) -> None:
    rule = dk.FreeDelay("synaptic", max_delay=200)
    with pytest.warns(UserWarning) as told:
        wrap(Loop(), {"fc": rule}, example=torch.zeros(10, 2, 6))
    (one,) = told
    assert "fc: about" in str(one.message) and "Lower max_delay" in str(one.message) and one.filename == __file__


@pytest.mark.parametrize("delay", [9.0, 9.5])
def test_delays_within_the_example_draw_none(delay) -> None:
    rule = dk.FreeDelay("axonal", max_delay=200, init=delay)
    assert dk.plan(Loop(), {"fc": rule}, example=torch.zeros(10, 2, 6)).warnings == ()


def test_an_example_of_one_step_says_nothing_of_the_length() -> None:
    net = torch.nn.Sequential(torch.nn.Linear(6, 4), snn.Leaky(beta=0.9, init_hidden=True))
    assert dk.plan(net, {"0": dk.FreeDelay("axonal", max_delay=200)}, example=torch.zeros(2, 6)).warnings == ()


def test_delays_are_in_ms_too_where_the_library_knows_its_step() -> None:
    norse = pytest.importorskip("norse.torch", reason="norse is not installed")
    net = norse.SequentialState(torch.nn.Linear(6, 4), norse.LIFCell())
    rule = {"0": dk.FreeDelay("axonal", max_delay=25, init=5.0)}
    plan = dk.plan(net, rule, example=torch.zeros(2, 6))
    assert "up to 25 steps = 25 ms" in str(plan)
    dk.wrap_(net, plan)
    assert "5.0..5.0 steps, mean 5.0, learned = 5.0..5.0 ms" in str(dk.status(net))
    assert " ms" not in str(dk.plan(Loop(), {"fc": rule["0"]}, example=torch.zeros(10, 2, 6)))
