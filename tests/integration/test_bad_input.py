"""Bad input: every error is typed, names the place, says what to do, and leaves the model as it was."""

from __future__ import annotations

import hand
import pytest
import torch
from hand import HIDDEN, POST, PRE
from torch import nn
from torch.nn.utils import parametrizations

import delaykit as dk

snn = pytest.importorskip("snntorch", reason="wraps snntorch models")


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.lif1 = nn.Linear(PRE, HIDDEN), snn.Leaky(beta=0.8)
        self.fc2, self.lif2 = nn.Linear(HIDDEN, POST), snn.Leaky(beta=0.8)

    def forward(self, x):
        mem1, mem2, out = self.lif1.reset_mem(), self.lif2.reset_mem(), []
        for step in x:
            spk, mem1 = self.lif1(self.fc1(step), mem1)
            spk, mem2 = self.lif2(self.fc2(spk), mem2)
            out.append(mem2)
        return torch.stack(out)


class Conv(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.lif = nn.Conv2d(2, 3, 3), snn.Leaky(beta=0.8)

    def forward(self, x):
        mem, out = self.lif.reset_mem(), []
        for step in x:
            spk, mem = self.lif(self.conv(step), mem)
            out.append(spk)
        return torch.stack(out)


def example():
    return hand.spikes_in().float()


def wrapped(delay=2.5, **more):
    return dk.wrap_(Net(), {"fc1": dk.FreeDelay("axonal", max_delay=9, init=delay, **more)}, example=example())


def assert_helpful(error, place, *words):
    assert isinstance(error, dk.DelaykitError) and place in str(error), error
    assert error.found and (error.expected or error.fix), error
    for word in words:
        assert word in str(error), (word, str(error))


INPUTS = {
    "channels": (lambda: torch.rand(4, 3, PRE + 1), dk.ShapeError, "5 channels"),
    "integers": (lambda: torch.ones(4, 3, PRE, dtype=torch.int64), dk.ShapeError, "float"),
    "booleans": (lambda: torch.ones(4, 3, PRE, dtype=torch.bool), dk.ShapeError, "float"),
    "float64": (lambda: torch.rand(4, 3, PRE).double(), dk.ShapeError, "float32"),
    "sparse": (lambda: [torch.rand(3, PRE).to_sparse()] * 4, dk.ShapeError, "to_dense"),
    "no tensor": (lambda: ["spikes"], dk.ShapeError, "tensor"),
    "scalar": (lambda: [torch.tensor(1.0)], dk.ShapeError, "channels"),
}


@pytest.mark.parametrize("granularity", ["axonal", "synaptic"])
@pytest.mark.parametrize("case", INPUTS)
def test_wrong_input_to_a_layer(case, granularity):
    make, kind, word = INPUTS[case]
    net = dk.wrap_(Net(), {"fc1": dk.FreeDelay(granularity, init=2)}, example=example())
    with pytest.raises(kind) as caught:
        net(make())
    assert_helpful(caught.value, "fc1", word)
    assert net(example()).shape == (hand.TIME, hand.BATCH, POST)  # and the next sequence is a clean one


@pytest.mark.parametrize("shape", [(4, 3, 1, 6, 6), (4, 3, 3, 6, 6), (4, 6, 6)])
def test_wrong_input_to_a_convolution(shape):
    x = torch.rand(4, 3, 2, 6, 6)
    net = dk.wrap_(Conv(), {"conv": dk.FreeDelay("axonal", init=2)}, example=x)
    with pytest.raises(dk.ShapeError) as caught:
        net(torch.rand(shape))
    assert_helpful(caught.value, "conv", "2 channels")


DELAYS = {
    "nan": (float("nan"), "NaN"),
    "inf": (float("inf"), "infinite"),
    "negative": (-0.5, "attach"),
    "too large": (9.5, "attach"),
}


@pytest.mark.parametrize("case", DELAYS)
def test_delays_that_left_their_range(case):
    net = wrapped()
    value, word = DELAYS[case]
    with torch.no_grad():
        net.fc1.dk.delay.delay[1] = value
    with pytest.raises(dk.DelayRangeError) as caught:
        net(example())
    assert_helpful(caught.value, "fc1", word)


@pytest.mark.parametrize(
    "init", [float("nan"), float("inf"), -1.0, 10.0, [1.0, -2.0], "far", None, [[1.0], [1.0, 2.0]]]
)
def test_impossible_initial_delays(init):
    with pytest.raises((dk.ConfigError, dk.DelayRangeError)) as caught:
        dk.FreeDelay("axonal", max_delay=9, init=init)
    assert_helpful(caught.value, "FreeDelay")


@pytest.mark.parametrize(
    "options",
    [
        {"granularity": "dentritic"},
        {"max_delay": 0},
        {"max_delay": float("nan")},
        {"max_delay": "9"},
        {"spread": -1.0, "kernel": "triangle"},
        {"spread": 1.0},
        {"kernel": "cubic"},
        {"kernel": "hard"},
        {"low": 5.0, "high": 2.0},
        {"rounding": "up"},
        {"spread_decay": 0.0},
    ],
)
def test_impossible_configs(options):
    with pytest.raises(dk.ConfigError) as caught:
        dk.FreeDelay(**options)
    assert_helpful(caught.value, "FreeDelay", next(iter(options)) if len(options) == 1 else "FreeDelay")


RULES = {
    "unknown site": ({"fc3": dk.FreeDelay()}, dk.UnknownNameError, ["fc1", "fc2", "did you mean"]),
    "typo": ({"cf1": dk.FreeDelay()}, dk.UnknownNameError, ["'fc1'"]),
    "pattern": ({"conv*": dk.FreeDelay()}, dk.UnknownNameError, ["fc1", "fc2"]),
    "neuron": ({"lif1": dk.FreeDelay()}, dk.UnknownNameError, ["is a neuron", "dk.Recurrent"]),
    "site": ({"fc1": dk.Recurrent(dk.FreeDelay())}, dk.UnknownNameError, ["is a connection"]),
    "class": ({"fc1": dk.FreeDelay}, dk.ConfigError, ["config"]),
    "number": ({"fc1": 2.5}, dk.ConfigError, ["2.5"]),
    "none": ({"fc1": None}, dk.ConfigError, ["None"]),
    "empty": ({}, dk.ConfigError, ["site pattern"]),
    "no dict": (dk.FreeDelay(), dk.ConfigError, ["dict"]),
    "two delays": ({"fc1": (dk.FreeDelay(), dk.FreeDelay())}, dk.ConfigError, ["two delay", "at most one"]),
    "init shape": ({"fc1": dk.FreeDelay(init=[1.0, 2.0])}, dk.ShapeError, ["(5,)"]),
    "time_dim": ({"fc1": dk.At(dk.FreeDelay(), time_dim=1)}, dk.ShapeError, ["time_dim=1"]),
    "carried": ({"fc1": dk.At(dk.FreeDelay(), reset="carried")}, dk.ConfigError, ["a state that the caller carries"]),
}


@pytest.mark.parametrize("case", RULES)
def test_wrong_rules(case):
    rules, kind, words = RULES[case]
    net = Net()
    before = hand.photograph(net)
    plan = dk.plan(net, rules, example=example())
    assert len(plan.issues) == 1 and isinstance(plan.issues[0], kind), plan
    for word in words:
        assert word in str(plan.issues[0]), (word, str(plan.issues[0]))
    with pytest.raises(dk.WrapError):
        dk.wrap_(net, rules, example=example())
    hand.same_photograph(before, hand.photograph(net))


@pytest.mark.parametrize("learn", [True, False])
def test_convolutions_refuse_exact_times_of_synaptic_delays(learn):
    component = dk.FreeDelay("synaptic", init=2, learn=learn, estimator="exact")
    plan = dk.plan(Conv(), {"conv": component}, example=torch.rand(4, 3, 2, 6, 6))
    assert_helpful(plan.issues[0], "conv", "axonal")


def test_unknown_component_names_the_nearest():
    from delaykit.plugins import registry

    with pytest.raises(dk.UnknownNameError) as caught:
        registry.resolve("delay", "fre")
    assert_helpful(caught.value, "fre", "free")


def test_unknown_options():
    with pytest.raises(dk.ConfigError, match="auto"):
        dk.At(dk.FreeDelay(), reset="never")
    with pytest.raises(dk.ConfigError, match="time_dim"):
        dk.At(dk.FreeDelay(), time_dim="first")
    with pytest.raises(dk.ConfigError, match="orthogonal"):
        dk.Recurrent(dk.FreeDelay(), weight="ones")
    with pytest.raises(dk.ConfigError, match="square"):
        dk.Recurrent(dk.FreeDelay(), weight=torch.zeros(2, 3))


EXAMPLES = {
    "wrong shape": lambda: torch.rand(4, 3, PRE + 2),
    "wrong type": lambda: "batch",
    "raises": lambda: lambda: 1 / 0,
    "none": lambda: None,
    "unused": lambda: lambda: None,
}


@pytest.mark.parametrize("case", EXAMPLES)
def test_examples_that_tell_nothing(case):
    net, given = Net(), EXAMPLES[case]()
    before = hand.photograph(net)
    plan = dk.plan(net, {"fc1": dk.FreeDelay()}, example=given)
    assert plan.issues and all(isinstance(i, dk.DelaykitError) for i in plan.issues)
    assert "example" in str(plan.issues[0])
    hand.same_photograph(before, hand.photograph(net))


def test_all_problems_are_told_at_once():
    net = Net()
    before = hand.photograph(net)
    rules = {
        "fc1": dk.FreeDelay(init=[1.0]),
        "fc9": dk.FreeDelay(),
        "fc2": "soon",
        "lif2": dk.Recurrent(weight=torch.eye(3)),
    }
    with pytest.raises(dk.WrapError) as caught:
        dk.wrap_(net, rules, example=example())
    assert len(caught.value.problems) >= 3
    for word in ("fc1", "fc9", "soon", "left unchanged"):
        assert word in str(caught.value)
    hand.same_photograph(before, hand.photograph(net))


def shared():
    net = Net()
    net.other = net.fc1
    return net


QUARRELS = {
    "components": {"fc1": dk.FreeDelay(), "other": dk.FreeDelay("layer")},
    "values": {"fc1": dk.FreeDelay(init=1), "other": dk.FreeDelay(init=2)},
    "options": {"fc1": dk.FreeDelay(), "other": dk.At(dk.FreeDelay(), reset="manual")},
    "pattern": {"*": dk.FreeDelay(), "fc1": dk.FreeDelay("layer")},
}


@pytest.mark.parametrize("case", QUARRELS)
def test_one_layer_with_two_rules_under_two_names(case):
    net = shared()
    plan = dk.plan(net, QUARRELS[case], example=example())
    assert len(plan.issues) == 1, plan
    assert_helpful(plan.issues[0], "other", "'fc1'", "all its names")
    with pytest.raises(dk.WrapError):
        dk.wrap_(net, plan)
    assert type(net.fc1) is nn.Linear


@pytest.mark.parametrize("names", [("fc1",), ("other",), ("fc1", "other"), ("*",)])
def test_one_layer_with_one_rule_under_any_of_its_names(names):
    net = dk.wrap_(shared(), dict.fromkeys(names, dk.FreeDelay("axonal")), example=example())
    assert len([m for m in net.modules() if isinstance(m, dk.interfaces.Delay)]) == 1 + (names == ("*",))
    assert bool(net(example()).isfinite().all())


def test_nobody_carries_the_history_of_a_snntorch_model():
    net = nn.Sequential(nn.Linear(PRE, HIDDEN), snn.RLeaky(beta=0.8, linear_features=HIDDEN, init_hidden=True))
    rules = dict.fromkeys(("0", "1.recurrent"), dk.At(dk.FreeDelay(), reset="carried"))
    plan = dk.plan(net, rules, example=example()[0])
    assert len(plan.issues) == 2 and all("reset='auto'" in str(issue) for issue in plan.issues), plan


def test_a_policy_that_was_asked_for_is_the_one_that_is_planned():
    class Kept(nn.Sequential):
        def forward(self, x):
            self[1].reset_mem()
            return torch.stack([super(Kept, self).forward(step) for step in x])

    net = Kept(nn.Linear(PRE, HIDDEN), snn.Leaky(beta=0.8, init_hidden=True))
    for policy in ("root", "follow", "manual"):
        plan = dk.plan(net, {"0": dk.At(dk.FreeDelay(), reset=policy)}, example=example())
        assert not plan.issues and plan.sites[0].timing.policy == policy, plan
    twin = dk.wrap(net, {"0": dk.FreeDelay("axonal", init=2)}, example=example())
    dk.wrap_(net, {"0": dk.At(dk.FreeDelay("axonal", init=2), reset="follow")}, example=example())
    for data in (example(), example(), example()[:, :2]):
        torch.testing.assert_close(net(data), twin(data))


def test_wrapping_twice():
    net = wrapped()
    before = hand.photograph(net)
    with pytest.raises(dk.WrapError, match="fc1.*unwrap_"):
        dk.wrap_(net, {"fc1": dk.FreeDelay()}, example=example())
    hand.same_photograph(before, hand.photograph(net))
    dk.wrap_(net, {"fc2": dk.FreeDelay()}, example=example())  # another site may still be wrapped
    assert "dk" in net.fc2._modules
    dk.unwrap_(net)
    with pytest.raises(dk.ConfigError, match="not wrapped"):
        dk.unwrap_(net)


def test_order_of_wrappers():
    cases = {
        "DistributedDataParallel": nn.DataParallel(Net()),
        "torch.compile": torch.compile(Net()),
    }
    for word, net in cases.items():
        plan = dk.plan(net, {"*": dk.FreeDelay()}, example=example())
        assert len(plan.issues) == 1 and word in str(plan.issues[0]), plan
    net = Net()
    parametrizations.weight_norm(net.fc1)
    plan = dk.plan(net, {"fc1": dk.FreeDelay()}, example=example())
    assert_helpful(plan.issues[0], "fc1", "parametrization")
    plan = dk.plan("net", {"fc1": dk.FreeDelay()})
    assert_helpful(plan.issues[0], "model", "torch.nn.Module")


def test_lazy_layers_are_refused():
    net = nn.Sequential(nn.LazyLinear(HIDDEN), snn.Leaky(beta=0.8, init_hidden=True))
    plan = dk.plan(net, {"0": dk.At(dk.FreeDelay(), reset="manual")})
    assert_helpful(plan.issues[0], "0", "run the model once")


def test_a_plan_of_another_model():
    plan = dk.plan(Net(), {"fc1": dk.FreeDelay()}, example=example())
    with pytest.raises(dk.ConfigError, match="another model"):
        dk.wrap_(Net(), plan)


def test_a_failure_in_the_middle_rolls_back(monkeypatch):
    from delaykit.wrapping import apply

    net = dk.wrap_(Net(), {"lif1": dk.Recurrent(dk.FreeDelay(init=1))}, example=example())
    before, output = hand.photograph(net), net(example())
    plan = dk.plan(net, {"fc*": dk.FreeDelay(init=2), "lif2": dk.Recurrent(dk.FreeDelay())}, example=example())
    plan.check()
    real, calls = apply._attach, []

    def fails_at_the_last(*args):
        calls.append(args)
        if len(calls) == 3:
            raise RuntimeError("out of memory")
        real(*args)

    monkeypatch.setattr(apply, "_attach", fails_at_the_last)
    with pytest.raises(RuntimeError, match="out of memory"):
        dk.wrap_(net, plan)
    monkeypatch.undo()
    after = hand.photograph(net)
    assert {k: v[0] for k, v in before[0].items()} == {k: v[0] for k, v in after[0].items()}
    assert list(before[1]) == list(after[1])
    torch.testing.assert_close(net(example()), output, rtol=0, atol=0)
    dk.unwrap_(net)
    assert type(net) is Net and type(net.lif1) is snn.Leaky and type(net.fc1) is nn.Linear


def test_calls_outside_the_model():
    net = wrapped()
    with pytest.raises(dk.HistoryError) as caught:
        net.fc1(torch.rand(3, PRE))
    assert_helpful(caught.value, "fc1", "outside net", "manual")


@pytest.mark.parametrize(
    "control", [dk.reset, dk.detach, dk.status, dk.finalize_, lambda n: dk.param_groups(n, lr=1.0)]
)
def test_controls_of_a_bare_model(control):
    with pytest.raises(dk.ConfigError, match="dk.wrap_"):
        control(Net())


@pytest.mark.parametrize("reset", ["manual", "root", "follow"])
def test_a_carried_history_has_no_other_reset(reset):
    norse = pytest.importorskip("norse.torch", reason="the cell is Norse's")
    cell = norse.LIFRecurrentCell(3, 4)
    rule = dk.At(dk.FreeDelay("axonal"), reset=reset)
    plan = dk.plan(cell, {"input": rule}, example=torch.zeros(1, 3))
    assert len(plan.issues) == 1 and "None where a sequence begins" in str(plan.issues[0])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_on_the_cpu_names_the_layer(dtype):
    net = dk.wrap_(nn.Sequential(nn.Linear(3, 2)), {"0": dk.At(dk.FreeDelay(), reset="manual")}).to(dtype)
    with pytest.raises(dk.ShapeError, match=r"^0: .*float32"):
        net(torch.zeros(1, 3, dtype=dtype))
