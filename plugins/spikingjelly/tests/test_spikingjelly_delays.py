"""Delays before SpikingJelly's neurons, against spikes shifted by hand and bare neurons stepped one by one."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from spikingjelly.activation_based import functional, layer, neuron
from torch import Tensor, nn

import delaykit as dk

PRE, HIDDEN, OUT, TIME = 6, 8, 4, 24
TOLERANCE = 1e-12  # float64

STRENGTHS = {
    "IF": (2.8, 5.6), "LIF": (2.8, 5.6), "LIF soft": (2.8, 4.0), "LIF decay_input": (2.8, 4.0), "PLIF": (2.8, 5.6),
    "QIF": (5.6, 8.0), "EIF": (1.4, 8.0), "Izhikevich": (5.6, 8.0), "CUBALIF": (0.5, 1.0), "RAF": (1.4, 2.8),
}  # fmt: skip
"""How loud the two layers must be for the neurons to fire."""

NEURONS: dict[str, Callable[..., nn.Module]] = {
    "IF": lambda **o: neuron.IFNode(**o),
    "LIF": lambda **o: neuron.LIFNode(tau=3.0, decay_input=False, **o),
    "LIF soft": lambda **o: neuron.LIFNode(tau=3.0, v_reset=None, decay_input=False, **o),
    "LIF decay_input": lambda **o: neuron.LIFNode(tau=1.5, v_threshold=0.6, **o),
    "PLIF": lambda **o: neuron.ParametricLIFNode(init_tau=3.0, decay_input=False, detach_reset=True, **o),
    "QIF": lambda **o: neuron.QIFNode(**o),
    "EIF": lambda **o: neuron.EIFNode(**o),
    "Izhikevich": lambda **o: neuron.IzhikevichNode(a=0.1, b=0.2, **o),
    "CUBALIF": lambda **o: _in_mode(neuron.CUBALIFNode(), **o),
    "RAF": lambda **o: neuron.RAFNode(v_threshold=0.6, **o),
}


def _in_mode(module: Any, step_mode: str = "s") -> nn.Module:
    module.step_mode = step_mode
    return module


def input_spikes(time: int = TIME, batch: int = 3, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(time, batch, PRE, generator=generator) < 0.35).double()


def shifted(signal: Tensor, delay: float) -> Tensor:
    """Shift along time by hand; between two whole delays, the two shifts weighed by their distance."""
    whole, rest = int(delay), delay - int(delay)

    def moved(steps: int) -> Tensor:
        return torch.cat([signal.new_zeros(steps, *signal.shape[1:]), signal])[: len(signal)]

    return moved(whole) if rest == 0 else (1 - rest) * moved(whole) + rest * moved(whole + 1)


def fed(name: str, linear: nn.Module, spikes: Tensor, delay: float) -> Tensor:
    """Current of a layer whose spikes (or, behind the weights, whose currents) come late."""
    if name == "dendritic":
        current = shifted(nn.functional.linear(spikes, linear.weight), delay)
        return current + linear.bias
    return nn.functional.linear(shifted(spikes, delay), linear.weight, linear.bias)


def alone(node: nn.Module, currents: Tensor) -> tuple[Tensor, Tensor]:
    """Step a bare copy of a neuron from rest; return spikes and membranes."""
    twin: Any = copy.deepcopy(node)
    twin.step_mode = "s"
    twin.reset()
    steps = [(twin(x), twin.v) for x in currents]
    return torch.stack([s for s, _ in steps]), torch.stack([v for _, v in steps])


def by_hand(bare: Any, granularity: str, spikes: Tensor, delay: float) -> tuple[list[Tensor], Tensor]:
    """Run the two layers one after the other, each over the whole sequence; return spikes of both, last membrane."""
    first, _ = alone(bare[1], fed(granularity, bare[0], spikes, delay))
    second, membrane = alone(bare[3], fed(granularity, bare[2], first, delay))
    return [first, second], membrane


def make(kind: str = "LIF", mode: str = "s", linear: Callable[..., nn.Module] = nn.Linear) -> Any:
    """Make two layers that fire."""
    torch.manual_seed(1)
    first, second = NEURONS[kind](step_mode=mode), NEURONS[kind](step_mode=mode)
    net: Any = nn.Sequential(linear(PRE, HIDDEN), first, linear(HIDDEN, OUT), second)
    with torch.no_grad():
        for index, strength in zip((0, 2), STRENGTHS[kind], strict=True):
            net[index].weight.mul_(strength)
            net[index].bias.mul_(0.3)
    return net.double()


def run(net: Any, spikes: Tensor) -> Tensor:
    """Run one sequence as it is fed in this mode; the state goes on from where it is."""
    return net(spikes) if net[1].step_mode == "m" else torch.stack([net(x) for x in spikes])


def example(net: Any, time: int = 4) -> Callable[[], Tensor]:
    return lambda: run(net, input_spikes(time, 2))


def check_firing(spikes: list[Tensor]) -> None:
    for layer_spikes in spikes:
        rate = float(layer_spikes.detach().ne(0).double().mean())
        assert 0.02 <= rate <= 0.30, f"{rate:.1%}: too silent or too loud to prove anything"


@pytest.mark.parametrize(("granularity", "delay"), [("axonal", 2.0), ("axonal", 2.5), ("dendritic", 2.5)])
@pytest.mark.parametrize("mode", ["s", "m"])
@pytest.mark.parametrize("kind", NEURONS)
def test_a_delayed_net_equals_one_whose_spikes_were_shifted_by_hand(
    kind: str, mode: str, granularity: str, delay: float
) -> None:
    net = make(kind, mode)
    bare = copy.deepcopy(net)
    dk.wrap_(net, {"*": dk.FreeDelay(granularity, max_delay=6, init=delay)}, example=example(net))
    first, other = input_spikes(), input_spikes(TIME - 5, 5, seed=1)
    for spikes in (first, first, other, first):
        functional.reset_net(net)
        found = run(net, spikes)
        wanted, membrane = by_hand(bare, granularity, spikes, delay)
        check_firing(wanted)
        assert torch.equal(found, wanted[-1])
        torch.testing.assert_close(net[3].v, membrane[-1], rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("mode", ["s", "m"])
@pytest.mark.parametrize("kind", ["LIF", "PLIF", "IF"])
def test_gradients_are_those_of_the_net_shifted_by_hand(kind: str, mode: str) -> None:
    net = make(kind, mode)
    bare = copy.deepcopy(net)
    dk.wrap_(net, {"*": dk.FreeDelay("axonal", max_delay=6, init=2.5)}, example=example(net))
    spikes, weights = input_spikes(), torch.randn(TIME, 3, OUT, dtype=torch.float64)
    found = torch.autograd.grad((run(net, spikes) * weights).sum(), [net[0].weight, net[2].weight, net[2].bias])
    wanted = (by_hand(bare, "axonal", spikes, 2.5)[0][-1] * weights).sum()
    expected = torch.autograd.grad(wanted, [bare[0].weight, bare[2].weight, bare[2].bias])
    assert all(bool(g.any()) for g in expected)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("delay", [2.0, 2.5])
@pytest.mark.parametrize("mode", ["s", "m"])
def test_a_sequence_in_pieces_is_the_whole_sequence(mode: str, delay: float) -> None:
    """SpikingJelly's neurons go on until reset_net: spikes under way at the end of a call arrive in the next one."""
    net = make("LIF", mode)
    bare = copy.deepcopy(net)
    dk.wrap_(net, {"*": dk.FreeDelay("axonal", max_delay=6, init=delay)}, example=example(net))
    spikes = input_spikes()
    wanted, _ = by_hand(bare, "axonal", spikes, delay)
    check_firing(wanted)
    for cuts in ([TIME], [7, 1, 2, TIME - 10], [1] * TIME):
        functional.reset_net(net)
        assert torch.equal(torch.cat([run(net, part) for part in spikes.split(cuts)]), wanted[-1]), cuts


@pytest.mark.parametrize("mode", ["s", "m"])
def test_truncated_bptt_keeps_the_spikes_and_cuts_the_graph(mode: str) -> None:
    net = make("LIF", mode)
    bare = copy.deepcopy(net)
    dk.wrap_(net, {"*": dk.FreeDelay("axonal", max_delay=6, init=2.5)}, example=example(net))
    spikes, found = input_spikes(), []
    for part in spikes.split(8):
        output = run(net, part)
        output.sum().backward()
        found.append(output.detach())
        functional.detach_net(net)
    assert torch.equal(torch.cat(found), by_hand(bare, "axonal", spikes, 2.5)[0][-1])
    assert bool(net[0].weight.grad.any()) and bool(net[0].dk.delay.delay.grad.any())


@pytest.mark.parametrize("delay", [2.0, 2.5])
@pytest.mark.parametrize("outer", ["MultiStepContainer", "loop in forward"])
def test_a_time_loop_inside_the_model(outer: str, delay: float) -> None:
    inner = make("LIF", "s")
    bare = copy.deepcopy(inner)
    net = layer.MultiStepContainer(*inner) if outer == "MultiStepContainer" else _Loop(inner)
    names = {"*": dk.FreeDelay("axonal", max_delay=6, init=delay)}
    dk.wrap_(net, names, example=input_spikes(4, 2))
    first, other = input_spikes(), input_spikes(TIME - 5, 5, seed=1)
    for spikes in (first, first, other):
        functional.reset_net(net)
        wanted, _ = by_hand(bare, "axonal", spikes, delay)
        check_firing(wanted)
        assert torch.equal(net(spikes), wanted[-1])
    functional.reset_net(net)
    assert torch.equal(torch.cat([net(part) for part in other.split(6)]), wanted[-1])


class _Loop(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, spikes: Tensor) -> Tensor:
        return torch.stack([self.inner(x) for x in spikes])


@pytest.mark.parametrize("delay", [2.0, 2.5])
def test_layers_with_a_step_mode_of_their_own(delay: float) -> None:
    net = make("LIF", "m", linear=lambda i, o: layer.Linear(i, o, step_mode="m"))
    bare = copy.deepcopy(net)
    dk.wrap_(net, {"*": dk.FreeDelay("synaptic", max_delay=6, init=delay)}, example=input_spikes(4, 2))
    for spikes in (input_spikes(), input_spikes(TIME - 5, 5, seed=1)):
        functional.reset_net(net)
        wanted, _ = by_hand(bare, "axonal", spikes, delay)
        check_firing(wanted)
        torch.testing.assert_close(net(spikes), wanted[-1], rtol=0, atol=0)


@pytest.mark.parametrize(("granularity", "delay"), [("axonal", 2.0), ("axonal", 2.5), ("dendritic", 2.5)])
@pytest.mark.parametrize("kind", ["layer.Conv2d m", "layer.Conv2d s", "SeqToANNContainer", "StepModeContainer"])
def test_convolutions(kind: str, granularity: str, delay: float) -> None:
    torch.manual_seed(0)
    mode = "s" if kind.endswith(" s") else "m"
    conv, node = layer.Conv2d(2, 3, 3, padding=1, step_mode=mode), neuron.LIFNode(decay_input=False, step_mode=mode)
    plain = nn.Conv2d(2, 3, 3, padding=1)
    with torch.no_grad():
        conv.weight.mul_(4.0)
    plain.load_state_dict(conv.state_dict())
    inside = {
        "SeqToANNContainer": lambda: layer.SeqToANNContainer(plain, nn.BatchNorm2d(3)),
        "StepModeContainer": lambda: layer.StepModeContainer(False, "m", plain),
    }.get(kind, lambda: conv)()
    net = nn.Sequential(inside, node).double().eval()
    bare, bare_node = copy.deepcopy(plain).double(), copy.deepcopy(node)
    generator = torch.Generator().manual_seed(3)
    frames = [(torch.rand(t, b, 2, 5, 5, generator=generator) < 0.4).double() for t, b in ((12, 2), (9, 4))]
    sample = (lambda: [net(x) for x in frames[0][:4]]) if mode == "s" else frames[0][:4]
    dk.wrap_(net, {"*": dk.FreeDelay(granularity, max_delay=6, init=delay)}, example=sample)
    for x in (frames[0], frames[0], frames[1]):
        functional.reset_net(net)
        found = torch.stack([net(step) for step in x]) if mode == "s" else net(x)
        late = shifted(x, delay) if granularity == "axonal" else x
        current = nn.functional.conv2d(late.flatten(0, 1), bare.weight, None, padding=1).unflatten(0, x.shape[:2])
        current = (shifted(current, delay) if granularity == "dendritic" else current) + bare.bias.reshape(-1, 1, 1)
        norm = inside[1] if kind == "SeqToANNContainer" else None
        if norm is not None:
            current = norm(current.flatten(0, 1)).unflatten(0, x.shape[:2])
        wanted, _ = alone(bare_node, current)
        check_firing([wanted])
        assert torch.equal(found, wanted)


@pytest.mark.parametrize("mode", ["s", "m"])
def test_the_feedback_of_a_linear_recurrent_container_counts_from_its_own_input(mode: str) -> None:
    """The container feeds back y[t-1]: a delay of d on it makes a spike arrive d + 1 steps after it was fired."""
    rec = layer.LinearRecurrentContainer(neuron.IFNode(v_threshold=0.5), 2, 2, bias=False, step_mode=mode).double()
    with torch.no_grad():
        rec.rc.weight.zero_()
        rec.rc.weight[0, 0] = rec.rc.weight[1, 2] = 1.0  # neuron 0 hears input 0, neuron 1 hears neuron 0
    net = nn.Sequential(rec)
    spikes = torch.zeros(12, 1, 2, dtype=torch.float64)
    spikes[1, 0, 0] = 1.0

    def fired() -> list[list[int]]:
        functional.reset_net(net)
        out = net(spikes) if mode == "m" else torch.stack([net(x) for x in spikes])
        return [out[:, 0, k].nonzero().flatten().tolist() for k in (0, 1)]

    assert fired() == [[1], [2]]
    functional.reset_net(net)
    sample = spikes[:4] if mode == "m" else lambda: [net(x) for x in spikes[:4]]
    dk.wrap_(net, {"0.rc": dk.FreeDelay("axonal", max_delay=6, init=2)}, example=sample)
    for _ in range(2):
        assert fired() == [[3], [6]]  # 1 + 2, then 3 + 1 + 2
    functional.reset_net(net)
    pieces = spikes.split([2, 3, 7])
    out = torch.cat([net(p) if mode == "m" else torch.stack([net(x) for x in p]) for p in pieces])
    assert [out[:, 0, k].nonzero().flatten().tolist() for k in (0, 1)] == [[3], [6]]


@pytest.mark.parametrize("delay", [2.0, 2.5])
def test_a_recurrent_connection_that_a_neuron_did_not_have(delay: float) -> None:
    """``dk.Recurrent`` counts as everywhere: s[t-1] is its input at t."""
    torch.manual_seed(2)
    net = nn.Sequential(nn.Linear(PRE, HIDDEN), NEURONS["LIF"]()).double()
    with torch.no_grad():
        net[0].weight.mul_(2.8)
    bare = copy.deepcopy(net)
    weight = 0.5 * torch.randn(HIDDEN, HIDDEN, dtype=torch.float64)
    rule = dk.Recurrent(dk.FreeDelay("axonal", max_delay=6, init=delay), weight=weight)
    dk.wrap_(net, {"1": rule}, example=lambda: [net(x) for x in input_spikes(4, 2)])
    for spikes in (input_spikes(), input_spikes(), input_spikes(TIME - 5, 5, seed=1)):
        functional.reset_net(net)
        found = torch.stack([net(x) for x in spikes])
        functional.reset_net(bare)
        fired: list[Tensor] = []
        for x in spikes:
            past = torch.stack([torch.zeros_like(spikes[0, :, :1]).expand(-1, HIDDEN), *fired])
            fired.append(bare[1](bare[0](x) + nn.functional.linear(shifted(past, delay)[-1], weight)))
        check_firing(fired and [torch.stack(fired)])
        assert torch.equal(found, torch.stack(fired))


@pytest.mark.parametrize("granularity", ["axonal", "dendritic"])
@pytest.mark.parametrize("mode", ["s", "m"])
def test_layers_that_standardise_their_weights_are_delayed_with_what_they_compute(mode: str, granularity: str) -> None:
    torch.manual_seed(0)
    conv, linear = layer.WSConv2d(2, 3, 3, padding=1, step_mode=mode), layer.WSLinear(3 * 25, 4, step_mode=mode)
    last = neuron.LIFNode(decay_input=False, step_mode=mode)
    net: Any = nn.Sequential(conv, layer.Flatten(step_mode=mode), linear, last).double()
    with torch.no_grad():
        conv.bias.copy_(torch.randn(3))
        linear.bias.copy_(0.3 * torch.randn(4))
        conv.gain.mul_(0.6)
        linear.gain.mul_(0.8)
    kernel, matrix, node = conv.get_weight().detach(), linear.get_weight().detach(), copy.deepcopy(last)
    x = (torch.rand(12, 2, 2, 5, 5, dtype=torch.float64) < 0.4).double()

    def run() -> Tensor:
        functional.reset_net(net)
        return net(x) if mode == "m" else torch.stack([net(step) for step in x])

    dk.wrap_(net, {"*": dk.FreeDelay(granularity, max_delay=6, init=2.5)}, example=run)
    late = shifted(x, 2.5) if granularity == "axonal" else x
    current = nn.functional.conv2d(late.flatten(0, 1), kernel, padding=1).unflatten(0, (12, 2))
    current = (current if granularity == "axonal" else shifted(current, 2.5)) + conv.bias.reshape(-1, 1, 1)
    late = shifted(current.flatten(2), 2.5) if granularity == "axonal" else current.flatten(2)
    current = nn.functional.linear(late, matrix)
    current = (current if granularity == "axonal" else shifted(current, 2.5)) + linear.bias
    wanted, _ = alone(node, current)
    check_firing([wanted])
    for _ in range(2):
        assert torch.equal(run(), wanted)


def test_a_convolution_with_a_forward_of_its_own_is_refused() -> None:
    class Binary(layer.Conv1d):
        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.conv1d(x, self.weight.sign())

    net = nn.Sequential(Binary(2, 3, 1), neuron.IFNode())
    plan = dk.plan(net, {"0": dk.FreeDelay("axonal")}, example=lambda: [net(torch.rand(1, 2, 4)) for _ in range(3)])
    assert "forward of its own" in str(plan.issues[0])
