"""A followed ``snn.Leaky`` advances its membrane in one kernel, to the library's numbers; where it is more, itself."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

snn = pytest.importorskip("snntorch", reason="wraps snntorch models")
pytest.importorskip("numba", reason="compiled steps")
from snntorch import surrogate  # noqa: E402

import delaykit as dk  # noqa: E402
from delaykit.adapters.snntorch import dynamics, leaky_kernel  # noqa: E402

PRE, POST, BATCH = 5, 83, 7  # more numbers than FEWEST, and no multiple of a vector


class Net(nn.Module):
    """One connection and a neuron whose membrane the loop carries, or which keeps it."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.fc = nn.Linear(PRE, POST)
        nn.init.uniform_(self.fc.weight, -1, 1, generator=torch.Generator().manual_seed(0))
        self.neuron = snn.Leaky(**{"beta": 0.9, "threshold": 0.4, **options})

    def forward(self, x: Tensor) -> Tensor:
        mem = self.neuron.reset_mem()
        out = []
        for step in x:
            if self.neuron.init_hidden:
                answer = self.neuron(self.fc(step))
                spikes, mem = answer if isinstance(answer, tuple) else (answer, self.neuron.mem)
            else:
                spikes, mem = self.neuron(self.fc(step), mem)
            out.append(torch.stack([spikes, mem, self.neuron.reset]))
        return torch.stack(out)


def wrapped(net: Net) -> Net:
    rule = {"fc": dk.FreeDelay("axonal", max_delay=3, init=0.0, learn=False)}
    return dk.wrap(net, rule, torch.zeros(2, BATCH, PRE))


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count the steps in one kernel."""
    steps, own = [0], leaky_kernel.leaky_step

    def step(*given: Any) -> Any:
        steps[0] += 1
        return own(*given)

    monkeypatch.setattr(leaky_kernel, "leaky_step", step)
    return steps


def both(net: Net, steps: int = 9) -> tuple[list[Tensor], list[Tensor]]:
    """Run a net bare and wrapped; give outputs and gradients of each."""
    x = torch.rand(steps, BATCH, PRE, generator=torch.Generator().manual_seed(1))
    weights = torch.randn(steps, 3, BATCH, POST, generator=torch.Generator().manual_seed(2))
    sides: list[list[Tensor]] = []
    for one in (net, wrapped(net)):
        y = one(x)
        if y.requires_grad:
            (y * weights).sum().backward()
        sides.append([y.detach(), *(p.grad.clone() for p in (one.fc.weight, one.fc.bias) if p.grad is not None)])
        one.zero_grad(set_to_none=True)
    return sides[0], sides[1]


def assert_alike(bare: list[Tensor], found: list[Tensor]) -> None:
    assert 0.02 < float((bare[0][:, 0] > 0).float().mean()) < 0.9
    assert torch.equal(bare[0], found[0])  # to the bit
    for one, other in zip(bare[1:], found[1:], strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("mechanism", ["subtract", "zero", "none"])
@pytest.mark.parametrize("made", [surrogate.atan, surrogate.fast_sigmoid, surrogate.sigmoid, surrogate.SFS])
@pytest.mark.parametrize("hidden", [False, True])
def test_is_the_librarys_step(monkeypatch: pytest.MonkeyPatch, mechanism: str, made: Any, hidden: bool) -> None:
    steps = counted(monkeypatch)
    options = {"reset_mechanism": mechanism, "spike_grad": made(3.0), "init_hidden": hidden}
    assert_alike(*both(Net(**options, beta=0.9 if mechanism != "none" else 0.5)))
    assert steps[0] == 9


ANSWERS = {"init_hidden": True, "output": True}


@pytest.mark.parametrize("options", [{"beta": 1.5}, {"beta": -0.2}, ANSWERS, {"graded_spikes_factor": 2.0}], ids=str)
def test_of_leaks_beyond_the_range_and_of_other_answers(monkeypatch: pytest.MonkeyPatch, options: Any) -> None:
    steps = counted(monkeypatch)
    assert_alike(*both(Net(**options)))
    assert steps[0] == 9


def test_evaluation_steps_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = counted(monkeypatch)
    for mode in (torch.no_grad(), torch.inference_mode()):
        with mode:
            assert_alike(*both(Net()))
    assert steps[0] == 18


OTHERS: dict[str, Callable[[], Net]] = {
    "a surrogate of one's own": lambda: Net(spike_grad=lambda x: (x > 0).to(x.dtype) + 0 * x),
    "no surrogate": lambda: Net(surrogate_disable=True),
    "learned leak": lambda: Net(learn_beta=True),
    "learned threshold": lambda: Net(learn_threshold=True),
    "a leak each": lambda: Net(beta=torch.linspace(0.5, 0.9, POST)),
    "whole number": lambda: Net(beta=1),
    "threshold without end": lambda: Net(threshold=float("-inf")),
    "reset at once": lambda: Net(reset_delay=False),
    "inhibition": lambda: Net(inhibition=True),
}


@pytest.mark.filterwarnings("ignore:Inhibition is an unstable feature")
@pytest.mark.parametrize("name", OTHERS)
def test_the_library_steps_what_is_more(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    steps = counted(monkeypatch)
    bare, found = both(OTHERS[name]())
    torch.testing.assert_close(bare, found, atol=1e-4, rtol=1e-5, equal_nan=True)
    assert steps[0] == 0


def test_what_changes_between_two_steps_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A leak written to, a method of the neuron's own, a double neuron: each at the next step."""
    steps, net = counted(monkeypatch), wrapped(Net())
    x = torch.rand(4, BATCH, PRE)
    net(x)
    assert steps[0] == 4
    net.neuron.beta.fill_(0.0)
    with torch.no_grad():
        _, mem, reset = net(x)[-1]
        drive = torch.nn.functional.linear(x[-1], net.fc.weight, net.fc.bias)
        assert torch.equal(mem, drive - reset * net.neuron.threshold)
    assert steps[0] == 8
    net.neuron.fire = lambda mem: torch.full_like(mem, 7.0)
    assert (net(x)[:, 0] == 7).all()
    assert steps[0] == 12
    net.neuron.mem_reset = torch.ones_like
    assert (net(x)[:, 2] == 1).all()
    assert steps[0] == 12


def test_surrogates_that_draw_or_leak_are_the_librarys() -> None:
    assert not dynamics.fires_above_zero(surrogate.SSO())
    assert not dynamics.fires_above_zero(surrogate.LSO())
    assert dynamics.fires_above_zero(surrogate.triangular())


def test_a_class_of_ones_own_steps_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    class Louder(snn.Leaky):
        def fire(self, mem: Tensor) -> Tensor:
            return 2 * super().fire(mem)

    steps, net = counted(monkeypatch), Net()
    net.neuron = Louder(beta=0.9, threshold=0.4)
    assert_alike(*both(net))
    assert steps[0] == 0


@pytest.mark.parametrize("kind", ["Lapicque", "Synaptic", "Alpha", "DeltaLeaky", "RLeaky", "RSynaptic"])
def test_neurons_of_other_kinds_step_themselves(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """They have other fields, and some of them others' equations."""
    decays = {"Synaptic": {"alpha": 0.8}, "Alpha": {"alpha": 0.9}, "RSynaptic": {"alpha": 0.8, "linear_features": POST}}
    decays["RLeaky"] = {"linear_features": POST}
    x = torch.rand(6, BATCH, PRE, generator=torch.Generator().manual_seed(1))

    def fresh() -> nn.Module:
        torch.manual_seed(0)
        neuron = getattr(snn, kind)(beta=0.7, threshold=0.4, init_hidden=True, **decays.get(kind, {}))
        return nn.Sequential(nn.Linear(PRE, POST), neuron)

    def run(net: nn.Module) -> Tensor:
        answers = [net(step) for step in x]
        return torch.stack([answer[0] if isinstance(answer, tuple) else answer for answer in answers])

    steps, net = counted(monkeypatch), fresh()
    rule = dk.At(dk.FreeDelay("axonal", max_delay=3, init=0.0, learn=False), reset="follow")
    dk.wrap_(net, {"0": rule}, example=lambda: [net(step) for step in x[:2]])
    assert torch.equal(run(fresh()), run(net))
    assert steps[0] == 0


def test_a_patched_library_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    steps, net = counted(monkeypatch), wrapped(Net())
    monkeypatch.setattr(snn.Leaky, "fire", lambda self, mem: torch.full_like(mem, 3.0))
    assert (net(torch.rand(4, BATCH, PRE))[:, 0] == 3).all()
    assert steps[0] == 4  # the membrane is as before
    monkeypatch.setattr(snn.Leaky, "mem_reset", lambda self, mem: torch.ones_like(mem))
    assert (net(torch.rand(4, BATCH, PRE))[:, 2] == 1).all()
    assert steps[0] == 4


def test_what_else_changes_a_step_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    """A state function by a name of the library's, a patched forward, a mode of torch."""

    def _base_sub(self: Any, drive: Tensor) -> Tensor:
        return 0.5 * self.mem * self.mem + drive

    class Halved(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, f: Any, types: Any, given: Any = (), named: Any = None) -> Any:
            answer = f(*given, **(named or {}))
            return answer * 0.5 if f is Tensor.clamp else answer

    own = snn.Leaky.forward
    steps, bare = counted(monkeypatch), Net()
    net, x = wrapped(bare), torch.rand(6, BATCH, PRE)
    for one in (bare, net):
        one.neuron.state_function = types.MethodType(_base_sub, one.neuron)
    assert torch.equal(bare(x), net(x))
    for one in (bare, net):
        one.neuron.state_function = one.neuron._base_sub
    with Halved():
        assert torch.equal(bare(x), net(x))
    monkeypatch.setattr(snn.Leaky, "forward", lambda self, *given: tuple(2 * a for a in own(self, *given)))
    assert torch.equal(bare(x), net(x))
    assert steps[0] == 0


def gradients_of(net: nn.Sequential, kind: str) -> list[Tensor]:
    """Give what a user may ask about membranes on the way, not only about parameters."""
    x = torch.rand(6, BATCH, PRE, generator=torch.Generator().manual_seed(0))
    net[1].reset_mem()
    answers = []
    for step in x:
        spikes, mem = net(step)
        if kind == "hook":
            mem.register_hook(lambda grad: grad.clamp(-0.05, 0.05))
        answers.append((spikes, mem))
    loss = sum(spikes.sum() for spikes, _ in answers)
    if kind == "asked":
        return list(torch.autograd.grad(loss, [mem for _, mem in answers]))
    loss.backward()
    return [net[0].weight.grad]


@pytest.mark.parametrize("mechanism", ["subtract", "zero"])
@pytest.mark.parametrize("kind", ["asked", "hook"])
def test_membranes_know_of_their_spikes(monkeypatch: pytest.MonkeyPatch, kind: str, mechanism: str) -> None:
    """A gradient with respect to a membrane has the way through the spikes of its own step."""

    def fresh() -> nn.Sequential:
        torch.manual_seed(0)
        neuron = snn.Leaky(0.9, threshold=0.4, init_hidden=True, output=True, reset_mechanism=mechanism)
        return nn.Sequential(nn.Linear(PRE, POST), neuron)

    steps, net = counted(monkeypatch), fresh()
    rule = dk.At(dk.FreeDelay("axonal", max_delay=3, init=0.0, learn=False), reset="follow")
    dk.wrap_(net, {"0": rule}, example=lambda: [net(torch.zeros(BATCH, PRE)) for _ in range(2)])
    bare, found = gradients_of(fresh(), kind), gradients_of(net, kind)
    assert steps[0] >= 6
    for one, other in zip(bare, found, strict=True):
        assert one.norm() > 0.1
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_a_step_is_made_again_by_checkpoint() -> None:
    """What a step saves is the same each time, the first one, too."""
    net = wrapped(Net(spike_grad=surrogate.fast_sigmoid(7.25)))
    drive, mem = torch.rand(BATCH, POST, requires_grad=True), torch.rand(BATCH, POST)
    spikes, _ = torch.utils.checkpoint.checkpoint(net.neuron, drive, mem, use_reentrant=False)
    spikes.sum().backward()
    assert drive.grad.norm() > 0


def test_membranes_are_cut_in_place() -> None:
    """``detach_hidden`` cuts the library's graph, and ours."""
    net = Net(init_hidden=True)
    rule = {"fc": dk.At(dk.FreeDelay("axonal", max_delay=3, init=0.0), reset="manual")}
    loop = dk.wrap(net, rule, torch.zeros(2, BATCH, PRE))
    mem = loop(torch.rand(3, BATCH, PRE))[-1, 1]
    assert mem.requires_grad
    assert loop.neuron.mem.requires_grad
    snn.Leaky.detach_hidden()
    assert not loop.neuron.mem.requires_grad
