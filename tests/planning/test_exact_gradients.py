"""Where exact gradients do not apply: said by the plan, before anything is touched, or at the call that breaks them."""

from __future__ import annotations

import pytest
import torch
from exact_nets import Chain, norse, snn, spikes_in, wrapped_chain
from torch import nn

import delaykit as dk
from delaykit.adapters.norse.exact_gradients import ExactNorseLIF
from delaykit.adapters.snntorch.exact_gradients import ExactSynaptic
from delaykit.errors import ConfigError, HistoryError, TrainingError, WrapError

DELTA = {
    "Leaky": lambda: snn.Leaky(0.9),
    "Lapicque": lambda: snn.Lapicque(0.9),
    "LIFBoxCell": lambda: norse.LIFBoxCell(),
    "Alpha": lambda: snn.Alpha(0.9, 0.8),
    "LIFAdExCell": lambda: norse.LIFAdExCell(),
    "Synaptic that quantises": lambda: snn.Synaptic(0.9, 0.8, state_quant=lambda x: x),
    "Synaptic that resets twice": lambda: snn.Synaptic(0.9, 0.8, reset_delay=False),
    "Synaptic without current": lambda: snn.Synaptic(0.0, 0.8),
}


@pytest.mark.parametrize("kind", DELTA)
def test_a_neuron_without_the_rule_is_refused_before_anything_is_touched(kind):
    net = Chain(DELTA[kind](), snn.Synaptic(0.9, 0.8))
    before = {n: type(m) for n, m in net.named_modules()}
    plan = dk.plan(net, {"fc1": dk.FreeDelay("axonal", estimator="exact")}, example=torch.zeros(3, 2, 6))
    assert len(plan.issues) == 1
    message = str(plan.issues[0])
    assert message.startswith("fc1") and "'lif1'" in message and "estimator='interp'" in message
    assert type(net.lif1).__name__ in message
    with pytest.raises(WrapError, match="interp"):
        dk.wrap_(net, plan)
    assert {n: type(m) for n, m in net.named_modules()} == before


@pytest.mark.parametrize("kind", ["Leaky", "LIFBoxCell", "Synaptic that never resets"])
def test_spikes_without_a_time_are_refused_at_their_source(kind):
    build = DELTA | {"Synaptic that never resets": lambda: snn.Synaptic(0.9, 0.8, reset_mechanism="none")}
    net = Chain(build[kind](), snn.Synaptic(0.9, 0.8))
    plan = dk.plan(net, {"fc2": dk.FreeDelay("axonal", estimator="exact")}, example=torch.zeros(3, 2, 6))
    assert len(plan.issues) == 1
    assert str(plan.issues[0]).startswith("fc2") and "'lif1'" in str(plan.issues[0])


def test_a_neuron_that_only_listens_need_not_reset():
    readouts = (snn.Synaptic(0.9, 0.8, reset_mechanism="none"), norse.LICell())
    for readout in readouts:
        net = Chain(snn.Synaptic(0.9, 0.8), readout)
        kind = ExactSynaptic if isinstance(readout, snn.Synaptic) else ExactNorseLIF
        dk.wrap_(net, {"fc*": dk.FreeDelay("axonal", estimator="exact")}, example=torch.zeros(3, 2, 6))
        assert not isinstance(net.lif2, kind) and isinstance(net.lif1, ExactSynaptic)
        net(spikes_in()).sum().backward()
        assert net.fc2.dk.delay.delay.grad.abs().sum() > 0


def test_recurrence_without_a_current_is_refused():
    net = Chain(snn.RLeaky(0.9, linear_features=8), snn.Synaptic(0.9, 0.8))
    net.forward = None  # no run is needed for a neuron's own connection
    plan = dk.plan(net, {"lif1.recurrent": dk.At(dk.FreeDelay(estimator="exact"), reset="manual")})
    assert [str(issue) for issue in plan.issues if "synaptic current" in str(issue)]
    plan = dk.plan(net, {"fc1": dk.At(dk.FreeDelay(estimator="exact"), reset="manual")})
    assert "pass example=" in str(plan.issues[0])


class Both(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.lif1, self.lif2 = nn.Linear(6, 8), snn.Synaptic(0.9, 0.8), snn.Synaptic(0.9, 0.8)

    def forward(self, x):
        one, two = self.lif1.reset_mem(), self.lif2.reset_mem()
        for step in x:
            current = self.fc(step)
            (_, *one), (spikes, *two) = self.lif1(current, *one), self.lif2(current, *two)
        return spikes


def test_a_connection_with_two_listeners_is_refused():
    plan = dk.plan(Both(), {"fc": dk.FreeDelay(estimator="exact")}, example=torch.zeros(3, 2, 6))
    assert "'lif1', 'lif2'" in str(plan.issues[0])


class Conv(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.lif = nn.Conv2d(2, 3, 3), snn.Synaptic(0.9, 0.8)
        with torch.no_grad():
            self.conv.weight.mul_(4)

    def forward(self, x):
        state = self.lif.reset_mem()
        for step in x:
            spikes, *state = self.lif(self.conv(step), *state)
        return state[-1]


def test_convolutions_take_delays_before_them_only():
    x = (torch.rand(20, 2, 2, 5, 5, generator=torch.Generator().manual_seed(0)) < 0.3).float()
    plan = dk.plan(Conv(), {"conv": dk.FreeDelay("dendritic", estimator="exact")}, example=x)
    assert "axonal" in str(plan.issues[0])
    net = dk.wrap_(Conv(), {"conv": dk.FreeDelay("axonal", max_delay=6, estimator="exact")}, example=x)
    net(x).sum().backward()
    assert net.conv.dk.delay.delay.grad.abs().min() > 0


def test_spikes_that_are_mixed_on_their_way_are_an_error_at_the_call():
    class Pooled(Chain):
        def forward(self, x):
            one, two = self.lif1.reset_mem(), self.lif2.reset_mem()
            for step in x:
                spikes, *one = self.lif1(self.fc1(step), *one)
                _, *two = self.lif2(self.fc2(spikes + spikes.roll(1, -1)), *two)
            return two[-1]

    net = Pooled(snn.Synaptic(0.9, 0.8), snn.Synaptic(0.9, 0.8))
    dk.wrap_(net, {"fc2": dk.FreeDelay(estimator="exact")}, example=torch.zeros(3, 2, 6))
    with pytest.raises(HistoryError, match="fc2.*AddBackward0.*interp"):
        net(spikes_in())


def test_time_constants_on_the_same_synapse_are_refused():
    hetsyn = pytest.importorskip("delaykit_hetsyn", reason="needs the plugin delaykit-hetsyn")
    net = Chain(snn.Synaptic(0.9, 0.8), snn.Synaptic(0.9, 0.8))
    rules = {"fc1": (dk.FreeDelay("axonal", estimator="exact"), hetsyn.HetSyn())}
    plan = dk.plan(net, rules, example=torch.zeros(3, 2, 6))
    assert any("together with" in str(issue) and "interp" in str(issue) for issue in plan.issues)


@pytest.mark.parametrize("options", [{"learn_spread": True, "estimator": "exact"}, {"estimator": "exakt"}])
def test_delrec_refuses_what_a_whole_arrival_cannot_have(options):
    delrec = pytest.importorskip("delaykit_delrec", reason="needs the plugin delaykit-delrec")
    with pytest.raises(ConfigError):
        delrec.DelRec(**options)
    with pytest.raises(ConfigError, match="DCLS.estimator"):
        delrec.DCLS(9, estimator="exakt")


class Between(nn.Module):
    """One step of a net with ``between`` behind its exact connection, a call after the other."""

    def __init__(self, between, neuron=None):
        super().__init__()
        self.fc, self.between, self.lif = nn.Linear(6, 8), between, neuron or snn.Synaptic(0.8, 0.9)

    def forward(self, x):
        state = self.lif.reset_mem() if hasattr(self.lif, "reset_mem") else (None,)
        for step in x:
            _, *state = self.lif(self.between(self.fc(step)), *state)
        return state[-1].v if hasattr(state[-1], "v") else state[-1]


def between(change, neuron=None):
    config = dk.FreeDelay("synaptic", max_delay=5, estimator="exact")
    return dk.wrap_(Between(change, neuron), {"fc": config}, example=torch.zeros(3, 4, 6))


class Functional(nn.Module):
    def forward(self, x):
        return nn.functional.dropout(x, 0.5, self.training)


CHANGES = {
    "Dropout": lambda: nn.Dropout(0.5),
    "dropout": Functional,
    "BatchNorm1d": lambda: nn.BatchNorm1d(8),
    "LayerNorm": lambda: nn.LayerNorm(8),
    "ReLU": nn.ReLU,
}
READOUTS = {"Synaptic": lambda: None, "LICell": norse.LICell, "LIFCell": norse.LIFCell}


@pytest.mark.parametrize("readout", READOUTS)
@pytest.mark.parametrize("change", CHANGES)
def test_what_changes_between_a_connection_and_its_neuron_is_refused_in_training(change, readout):
    net = between(CHANGES[change](), READOUTS[readout]())
    with torch.no_grad():
        net(spikes_in())  # nobody asks for gradients
    with pytest.raises(TrainingError, match=r"fc: .* 'lif'.* estimator='interp'"):
        net(spikes_in())
    dk.unwrap_(net)(spikes_in()).sum().backward()


@pytest.mark.parametrize("change", ["Dropout", "dropout", "BatchNorm1d"])
def test_what_changes_in_training_only_is_not_refused_in_evaluation(change):
    net = between(CHANGES[change]()).eval()
    net(spikes_in()).sum().backward()
    assert net.fc.dk.delay.delay.grad.any()
    with pytest.raises(TrainingError, match=r"fc: "):
        net.train()(spikes_in())


class Gain(nn.Module):
    def __init__(self):
        super().__init__()
        self.each = nn.Parameter(torch.full((8,), 1.5))

    def forward(self, x):
        return (2.0 * x.reshape(2, 2, 8).flatten(0, 1) + 0.1 - x) * self.each


def test_sums_and_constant_factors_between_are_let_through():
    net = between(Gain())
    net(spikes_in()).sum().backward()
    assert net.fc.dk.delay.delay.grad.any()
    before = snn.Synaptic(0.8, 0.9)
    assert type(dk.unwrap_(net).lif) is type(before) and not net.lif._forward_pre_hooks


def test_dropout_before_a_connection_is_let_through():
    net = Chain(snn.Synaptic(0.8, 0.9), snn.Synaptic(0.8, 0.9), nn.Sequential(nn.Dropout(0.3), nn.Linear(8, 8)))
    config = dk.FreeDelay("axonal", max_delay=4, estimator="exact")
    dk.wrap_(net, {"fc1": config, "fc2.1": config}, example=torch.zeros(3, 2, 6))
    net(spikes_in()).sum().backward()
    assert net.fc1.dk.delay.delay.grad is not None


def test_gradients_that_overflow_say_so():
    net = wrapped_chain()
    with torch.no_grad():
        net.lif1.recurrent.weight.mul_(20.0)
        net.fc1.weight.mul_(20.0)
    with pytest.warns(UserWarning, match="found exact gradients that are infinite.*rescale_gradient"):
        net(spikes_in(300))[-1].sum().backward()
