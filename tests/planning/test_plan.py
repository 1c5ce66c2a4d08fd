"""What a plan says of slips in rules and examples: which rule it was, once, and it can always be printed."""

from __future__ import annotations

import inspect

import pytest
import torch
from torch import nn

import delaykit as dk

snn = pytest.importorskip("snntorch", reason="wraps snntorch models")


def net():
    return nn.Sequential(nn.Linear(6, 5), snn.Leaky(beta=0.9, init_hidden=True), nn.Linear(5, 2))


@pytest.mark.parametrize("value", ["free", dk.FreeDelay, 3.0, ["free"]], ids=repr)
def test_a_value_that_is_no_component_is_named_with_its_rule(value):
    plan = dk.plan(net(), {"0": dk.FreeDelay(), "2": value}, example=torch.rand(4, 6))
    assert len(plan.issues) == 1 and "rule '2'" in str(plan.issues[0]) and "instance" in str(plan.issues[0])


def test_names_are_strings():
    plan = dk.plan(net(), {0: dk.FreeDelay()}, example=torch.rand(4, 6))
    assert [str(issue) for issue in plan.issues] == [
        "rules: found 0 for a name; expected a string. To go on: write '0'."
    ]


def test_an_example_that_fails_is_said_once():
    plan = dk.plan(net(), {"0": dk.FreeDelay(), "2": dk.FreeDelay(max_delay=3)}, example=torch.rand(4, 7))
    assert len(plan.issues) == 1 and "4x7 and 6x5" in str(plan.issues[0])


def test_without_an_example_every_connection_asks_for_one():
    plan = dk.plan(net(), {"0": dk.FreeDelay(), "2": dk.FreeDelay(max_delay=3)})
    assert len(plan.issues) == 2 and all("pass example=" in str(issue) for issue in plan.issues)


def test_a_plan_with_a_part_that_cannot_be_built_can_be_printed():
    conv = nn.Sequential(nn.Conv2d(1, 4, 3), snn.Leaky(beta=0.9, init_hidden=True))
    plan = dk.plan(conv, {"0": dk.FreeDelay("synaptic", estimator="exact")}, example=torch.rand(2, 1, 8, 8))
    assert len(plan.issues) == 1
    lines = str(plan).splitlines()
    cells = ["0", "1", "->", "4", "1", "FreeDelay(synaptic)", "-", "reset:", "follow", "1"]
    assert lines[1].split()[: len(cells)] == cells
    assert lines[2].startswith("issue: 0: found a component that needs a (post, pre) weight matrix")


def test_a_lazy_model_is_refused_before_its_example_runs():
    model = nn.Sequential(nn.LazyLinear(5), snn.Leaky(beta=0.9, init_hidden=True))
    plan = dk.plan(model, {"0": dk.FreeDelay()}, example=torch.rand(4, 6))
    assert len(plan.issues) == 1 and "run the model once" in str(plan.issues[0])
    assert type(model[0]) is nn.LazyLinear


def test_a_model_without_connections_is_told_what_connections_are():
    plan = dk.plan(nn.Sequential(nn.LSTM(6, 5)), {"0": dk.FreeDelay()}, example=torch.rand(9, 4, 6))
    assert len(plan.issues) == 1 and "this model has none" in str(plan.issues[0])
    assert "Linear and convolution layers" in str(plan.issues[0])


def test_learn_is_true_or_false():
    with pytest.raises(dk.ConfigError, match="FreeDelay.learn: found 'no'"):
        dk.FreeDelay(learn="no")


class Twice(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


class Same(nn.Linear):
    def forward(self, x):
        return super().forward(x)


def test_a_linear_that_computes_something_else_is_refused_before_it_is_touched():
    model = nn.Sequential(Twice(6, 5), snn.Leaky(beta=0.9, init_hidden=True), Same(5, 2))
    rules, x = {"0": dk.FreeDelay(init=2), "2": dk.FreeDelay(init=2)}, torch.rand(4, 6)
    plan = dk.plan(model, rules, example=x)
    assert (
        len(plan.issues) == 1 and "0: found Twice" in str(plan.issues[0]) and "module of its own" in str(plan.issues[0])
    )
    with pytest.raises(dk.WrapError, match="Twice"):
        dk.wrap_(model, rules, example=x)
    assert type(model[0]) is Twice and type(model[2]) is Same


def test_only_a_run_tells_what_a_forward_of_its_own_computes():
    rules = {"0": dk.At(dk.FreeDelay(), reset="root", time_dim=0)}
    assert dk.plan(nn.Sequential(nn.Linear(6, 5)), rules).issues == ()
    issues = dk.plan(nn.Sequential(Same(6, 5)), rules).issues
    assert len(issues) == 1 and "Same" in str(issues[0]) and "pass example=" in str(issues[0])


@pytest.mark.parametrize("layer", [lambda: nn.Linear(6, 5), lambda: nn.Conv1d(6, 5, 1)], ids=["Linear", "Conv1d"])
def test_a_forward_replaced_on_the_object_is_refused(layer):
    model = nn.Sequential(layer())
    model[0].forward = lambda x: x
    issues = dk.plan(model, {"0": dk.FreeDelay()}, example=torch.rand(6, 6)).issues
    assert len(issues) == 1 and "replaced on the object" in str(issues[0])


def test_help_shows_the_options_of_rules():
    shown = [list(inspect.signature(rule).parameters) for rule in (dk.At, dk.Recurrent)]
    assert shown == [["components", "reset", "time_dim"], ["components", "weight", "bias", "reset"]]
