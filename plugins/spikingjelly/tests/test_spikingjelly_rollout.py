"""``dk.rollout`` of SpikingJelly's neurons is the loop of their steps: values, membranes and every gradient."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from spikingjelly.activation_based import neuron, surrogate
from torch import Tensor, nn

import delaykit as dk
from delaykit_spikingjelly import SpikingJellyAdapter

TIME, BATCH, SIZE = 20, 3, 5
SCALE = {"IF": 0.4, "SimpleIF": 0.4, "HalfThresholdIF": 0.4, "LIF": 2.4, "PLIF": 2.4}
"""How loud the current must be, where not 1, for a neuron to fire."""

FUSED = {
    "IF": lambda **o: neuron.IFNode(**o),
    "SimpleIF": lambda **o: neuron.SimpleIFNode(**o),
    "HalfThresholdIF": lambda **o: neuron.HalfThresholdIFNode(detach_reset=o["detach_reset"]),
    "LIF": lambda **o: neuron.LIFNode(tau=3.0, **o),
    "LIF whole input": lambda **o: neuron.LIFNode(tau=3.0, decay_input=False, **o),
    "PLIF": lambda **o: neuron.ParametricLIFNode(init_tau=3.0, **o),
    "PLIF whole input": lambda **o: neuron.ParametricLIFNode(init_tau=3.0, decay_input=False, **o),
}
OPTIONS = [{"v_reset": r, "detach_reset": d} for r, d in itertools.product((0.0, None, 0.2), (False, True))]


def currents(seed: int = 0, scale: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.rand(TIME, BATCH, SIZE, generator=generator, dtype=torch.float64)
    return (scale * (1.6 * drawn - 0.3)).requires_grad_()


def stepped(node: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    node.reset()
    steps = [(node(step), node.v) for step in x]
    return torch.stack([s for s, _ in steps]), torch.stack([v for _, v in steps])


def gradients(outputs: tuple[Tensor, Tensor], leaves: list[Tensor]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(9)
    loss = sum((o * torch.randn(o.shape, generator=generator, dtype=o.dtype)).sum() for o in outputs)
    return list(torch.autograd.grad(loss, leaves))


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("kind", FUSED)
def test_a_bare_neuron(kind: str, options: dict[str, Any]) -> None:
    node = FUSED[kind](**options).double()
    assert SpikingJellyAdapter().dynamics(node) is not None
    x = currents(scale=SCALE.get(kind, 1.0))
    leaves = [x, *node.parameters()]
    wanted = stepped(node, x)
    rate = float(wanted[0].detach().mean())
    assert 0.02 <= rate <= 0.40, rate
    found = dk.rollout(node, x)
    assert torch.equal(found[0], wanted[0])
    torch.testing.assert_close(found[1], wanted[1], rtol=1e-12, atol=1e-12)
    for one, two in zip(gradients(found, leaves), gradients(wanted, leaves), strict=True):
        assert bool(two.any())
        torch.testing.assert_close(one, two, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("function", ["ATan", "Sigmoid", "SoftSign", "SuperSpike", "PiecewiseQuadratic", "Erf", "S2NN"])
def test_surrogates_keep_their_gradients(function: str) -> None:
    node = neuron.LIFNode(tau=3.0, decay_input=False, surrogate_function=getattr(surrogate, function)()).double()
    x = currents()
    one, two = gradients(dk.rollout(node, x), [x]), gradients(stepped(node, x), [x])
    torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("threshold", [0.5, 1.0])
def test_a_spike_is_fired_at_the_threshold_itself(threshold: float) -> None:
    node = neuron.IFNode(v_threshold=threshold).double()
    x = torch.full((3, 1, 1), threshold, dtype=torch.float64)
    assert dk.rollout(node, x)[0].sum() == 3


@pytest.mark.parametrize("delay", [0.0, 2.0, 2.5])
@pytest.mark.parametrize("granularity", ["axonal", "synaptic"])
@pytest.mark.parametrize("kind", ["LIF whole input", "PLIF whole input", "PLIF"])
def test_a_delayed_recurrent_connection(kind: str, granularity: str, delay: float) -> None:
    torch.manual_seed(4)
    node: Any = FUSED[kind](v_reset=0.0, detach_reset=False).double()
    weight = 0.4 * torch.randn(SIZE, SIZE).double()
    rule = dk.Recurrent(dk.FreeDelay(granularity, max_delay=6, init=delay), weight=weight)
    dk.wrap_(node, {"": rule}, example=lambda: stepped(node, currents()[:4].detach())).double()
    x = currents(scale=SCALE.get(kind, 1.0))
    leaves = [x, *node.parameters()]
    wanted, found = stepped(node, x), dk.rollout(node, x)
    assert 0.02 <= float(wanted[0].detach().mean()) <= 0.40
    assert torch.equal(found[0], wanted[0])
    torch.testing.assert_close(found[1], wanted[1], rtol=1e-12, atol=1e-12)
    for one, two in zip(gradients(found, leaves), gradients(wanted, leaves), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("name", ["QIFNode", "EIFNode", "IzhikevichNode", "RAFNode", "TernaryLIFNode", "CUBALIFNode"])
def test_other_neurons_run_step_by_step_with_the_same_result(name: str) -> None:
    node = getattr(neuron, name)().double()
    x = currents()
    found = dk.rollout(node, x)
    wanted = stepped(node, x)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gradients(found, [x]), gradients(wanted, [x]), rtol=1e-10, atol=1e-11)


class Learned(nn.Module):
    """A surrogate of the user's own."""

    spiking = True

    def forward(self, x: Tensor) -> Tensor:
        return x.sigmoid()


@pytest.mark.parametrize(
    "function", [surrogate.Sigmoid(spiking=False), surrogate.PoissonPass(), Learned()], ids=["analog", "random", "own"]
)
def test_neurons_whose_spike_is_no_fixed_step_are_not_fused(function: nn.Module) -> None:
    assert SpikingJellyAdapter().dynamics(neuron.LIFNode(surrogate_function=function)) is None


def test_a_derived_class_is_not_fused() -> None:
    class Own(neuron.LIFNode):
        def single_step_functional_forward(self, inputs: Any, states: Any, **kwargs: Any) -> Any:
            return super().single_step_functional_forward((2 * inputs[0],), states, **kwargs)

    node = Own(decay_input=False).double()
    assert SpikingJellyAdapter().dynamics(node) is None
    x = currents()
    torch.testing.assert_close(dk.rollout(node, x), stepped(node, x))
