"""Every neuron class of SpikingJelly is measured: what the adapter says about it is what it does."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from spikingjelly.activation_based import neuron
from torch import Tensor, nn

import delaykit as dk
from delaykit_spikingjelly.neurons import ADDITIVE, REFUSED

ABSTRACT = {"AdaptBaseNode", "BaseNode", "ILCBaseNode", "MPBNBaseNode", "NoisyBaseNode", "NoisyILCBaseNode",
            "NoisyNonSpikingBaseNode", "NonSpikingBaseNode", "SimpleBaseNode"}  # fmt: skip
EXTRA: dict[str, dict[str, Any]] = {
    "SimpleLIFNode": {"tau": 2.0, "decay_input": True},
    "LIAFNode": {"act": torch.relu, "threshold_related": False},
    "IzhikevichNode": {"a": 0.1, "b": 0.2},
    "MPBNLIFNode": {"out_features": 3},
}
WITH_THRESHOLD = [name for name in (*ADDITIVE, "KLIFNode", "MPBNLIFNode") if "NonSpiking" not in name]


def made(name: str, **options: Any) -> Any:
    return getattr(neuron, name)(**EXTRA.get(name, {}), **options).double()


def test_every_neuron_class_is_either_known_as_additive_or_refused_with_a_reason() -> None:
    classes = {n for n in dir(neuron) if isinstance(c := getattr(neuron, n), type) and issubclass(c, nn.Module)}
    assert classes - ABSTRACT == set(ADDITIVE) | set(REFUSED)
    assert not set(ADDITIVE) & set(REFUSED)
    assert all(len(reason) > 20 for reason in REFUSED.values())


def high(name: str) -> Any:
    """Make a neuron that does not fire: what is looked at is how it takes its input in."""
    if name != "CUBALIFNode":
        return made(name, v_threshold=1e3)
    node = made(name)
    node.v_threshold = 1e3
    return node


def additivity(name: str) -> float:
    """Return how far ``f(a + b) + f(0)`` is from ``f(a) + f(b)``, f all states after one step from a common one."""
    torch.manual_seed(0)
    start, a, b = (0.4 * torch.randn(5, 3, dtype=torch.float64) for _ in range(3))
    node = high(name)

    def after(x: Tensor) -> list[Tensor]:
        twin = copy.deepcopy(node)
        twin(start)
        twin(x)
        return [v for v in twin.memories() if isinstance(v, Tensor)]

    with torch.no_grad():
        states = zip(after(a + b), after(torch.zeros_like(a)), after(a), after(b), strict=True)
        return max(float((both + none - one - two).abs().max()) for both, none, one, two in states)


@pytest.mark.parametrize("name", WITH_THRESHOLD)
def test_currents_add_up_where_the_table_says_so(name: str) -> None:
    assert (additivity(name) < 1e-12) == (name in ADDITIVE)


@pytest.mark.parametrize("name", ["NonSpikingIFNode", "NonSpikingLIFNode"])
def test_readouts_add_up_and_begin_anew_with_each_call(name: str) -> None:
    a, b = torch.randn(2, 5, 2, 3, dtype=torch.float64)
    read = made(name, decode="mean-mem")
    torch.testing.assert_close(read(a + b), read(a) + read(b), rtol=1e-12, atol=1e-12)


def test_the_output_of_psn_hears_later_inputs() -> None:
    node = neuron.PSN(6)
    x = torch.rand(6, 1, 2, requires_grad=True)
    (grad,) = torch.autograd.grad(node(x)[2].sum(), x)
    assert bool(grad[3:].any())


@pytest.mark.parametrize("name", ["DSRIFNode", "DSRLIFNode"])
def test_the_gradient_of_dsr_is_that_of_a_mean_over_all_steps(name: str) -> None:
    x = (3 * torch.rand(6, 1, 2)).requires_grad_()
    (grad,) = torch.autograd.grad(getattr(neuron, name)(T=6)(x)[2].sum(), x)
    assert bool(grad.any()) and torch.equal(grad, grad[:1].expand_as(grad))  # later steps count as much as earlier ones


@pytest.mark.parametrize("name", ["SLTTLIFNode", "OTTTLIFNode"])
def test_online_neurons_cut_the_graph_at_every_step(name: str) -> None:
    node, x = made(name), torch.ones(2, 3, dtype=torch.float64, requires_grad=True)
    node(x)
    assert node.v.requires_grad
    node(torch.ones(2, 3, dtype=torch.float64))  # a plain LIF would still depend on x
    assert not node.v.requires_grad


@pytest.mark.parametrize("name", [
    "LIFNode", "SimpleLIFNode", "ParametricLIFNode", "IFNode", "SimpleIFNode", "CUBALIFNode", "HalfThresholdIFNode",
    "ActivationAwareIFNode", "TernaryIFNode", "TernaryLIFNode", "ILIFNode", "LIAFNode", "ComplementaryLIFNode",
])  # fmt: skip
def test_leak_is_how_much_is_kept_of_the_state_that_takes_the_input_in(name: str) -> None:
    from delaykit_spikingjelly import SpikingJellyAdapter

    node, state = high(name), "c" if name == "CUBALIFNode" else "v"
    start = torch.tensor([[0.3, 0.7]], dtype=torch.float64)
    kept = []
    with torch.no_grad():
        for before in (start, start + 0.125):
            node(torch.zeros_like(start))
            setattr(node, state, before)
            node(torch.zeros_like(start))
            kept.append(getattr(node, state))
            node.reset()
    leak = SpikingJellyAdapter().leak(node)
    assert leak is not None
    wanted = 0.125 * leak.detach().double().expand_as(start)
    torch.testing.assert_close(kept[1] - kept[0], wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["QIFNode", "EIFNode", "IzhikevichNode", "RAFNode"])
def test_neurons_without_a_constant_leak_have_none(name: str) -> None:
    from delaykit_spikingjelly import SpikingJellyAdapter

    assert SpikingJellyAdapter().leak(made(name)) is None


@pytest.mark.parametrize("name", ["KLIFNode", "MPBNLIFNode"])
def test_a_connection_into_a_refused_neuron_is_refused_with_the_reason(name: str) -> None:
    net = nn.Sequential(nn.Linear(4, 3), made(name)).double()
    x = torch.rand(3, 2, 4).double()
    plan = dk.plan(net, {"0": dk.FreeDelay("axonal")}, example=lambda: [net(step) for step in x])
    assert REFUSED[name] in str(plan.issues[0]) and name in str(plan.issues[0])
    with pytest.raises(dk.DelaykitError):
        dk.wrap_(net, plan)


def test_a_recurrent_rule_on_a_refused_neuron_is_refused_with_the_reason() -> None:
    net = nn.Sequential(nn.Linear(4, 3), made("KLIFNode")).double()
    plan = dk.plan(net, {"1": dk.Recurrent(dk.FreeDelay("axonal"))}, example=lambda: [net(torch.rand(2, 4).double())])
    assert REFUSED["KLIFNode"] in str(plan.issues[0])
