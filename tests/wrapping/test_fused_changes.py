"""What people do with a model of ``dk.fused`` between two calls, and in one: changes, hooks, refusals.

Whatever it is, the result and all gradients are the model's own; the report says which layers cannot run ahead.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import snntorch as snn
import torch
from fused_cases import (
    BATCH,
    EVERYWHERE,
    HIDDEN,
    PRE,
    TIME,
    TwoLayers,
    ahead_in,
    assert_equal_runs,
    leaky,
    loud,
    spikes,
)
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import delaykit as dk


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(11)


def test_gradients_add_up_over_calls() -> None:
    net = loud(TwoLayers())
    fast, found = dk.fused(net, example=spikes()), []
    for run in (fast, net):
        net.zero_grad()
        for size in (2, 3):
            (run(spikes(TIME, size))[1].square().mean() / 2).backward()
        found.append([p.grad.clone() for p in net.parameters()])
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-12)


def test_delays_and_weights_set_anew_count_at_the_next_call() -> None:
    net = loud(TwoLayers())
    dk.wrap_(net, {"fc*": dk.FreeDelay("synaptic", max_delay=4)}, example=spikes())
    fast = dk.fused(net, example=spikes())
    fast(spikes())
    with torch.no_grad():
        net.fc2.dk.delay.delay.fill_(2.25)
        net.fc1.weight.mul_(1.5)
    assert_equal_runs(net, fast, net, spikes())
    with dk.discretized(net):
        assert_equal_runs(net, fast, net, spikes())
    dk.detach(net)
    net.fc1.weight.requires_grad_(False)
    assert_equal_runs(net, fast, net, spikes())
    assert ahead_in(fast) == EVERYWHERE


def test_other_modules_in_the_place_of_those_that_were_proven() -> None:
    net = loud(TwoLayers())
    fast = dk.fused(net, example=spikes())
    for change in (
        lambda: setattr(net, "lif1", leaky(0.4, reset_mechanism="zero")),
        lambda: setattr(net, "fc1", loud(nn.Linear(PRE, HIDDEN, bias=False))),
        lambda: setattr(net, "lif2", snn.Leaky(beta=0.5, spike_grad=snn.surrogate.fast_sigmoid(), threshold=0.4)),
        lambda: nn.utils.parametrizations.weight_norm(net.fc1),
        lambda: dk.wrap_(net, {"fc2": dk.FreeDelay("axonal", init=2, max_delay=4)}, example=spikes()),
        lambda: dk.unwrap_(net),
    ):
        change()
        net.double()
        assert_equal_runs(net, fast, net, spikes())
        assert_equal_runs(net, fast, net, spikes(TIME + 1, 2))


@pytest.mark.parametrize("where", ["spikes", "currents", "membranes", "late"])
def test_a_hook_on_the_gradient_of_a_step_is_obeyed(where: str) -> None:
    """Such as one that cuts large gradients, which the small ones of an example do not show."""

    class Cut(TwoLayers):
        size = 1e9

        def cut(self, x: Tensor) -> Tensor:
            if x.requires_grad:
                x.register_hook(lambda g: g.clamp(-self.size, self.size))
            return x

        def forward(self, x: Tensor) -> Tensor:
            mem1, mem2 = self.lif1.reset_mem(), self.lif2.reset_mem()
            rec = []
            for t, step in enumerate(x):
                current = self.fc1(step) * 1.1
                spk1, mem1 = self.lif1(self.cut(current) if where == "currents" else current, mem1)
                if where == "spikes" or (where == "late" and self.size < 1.0 and t == 5):
                    self.cut(spk1)
                if where == "membranes":
                    self.cut(mem1)
                spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
                rec.append(spk2 + mem2)
            return torch.stack(rec)

    net = loud(Cut())
    fast = dk.fused(net, example=spikes())
    assert_equal_runs(net, fast, net, spikes())
    net.size = 1e-3
    assert_equal_runs(net, fast, net, spikes())
    assert any("looks at the gradient" in how for how in fast.report().values())


def test_gradients_of_recorded_steps_are_kept() -> None:
    class Kept(TwoLayers):
        def between(self, t: int, spk: Tensor) -> Tensor:
            spk.retain_grad()
            self.seen.append(spk)
            return spk

        def forward(self, x: Tensor) -> Any:
            self.seen: list[Tensor] = []
            return super().forward(x)

    net = loud(Kept())
    fast, found = dk.fused(net, example=spikes()), []
    for run in (fast, net):
        run(spikes())[1].square().sum().backward()
        found.append([spk.grad for spk in net.seen])
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-12)


class Homeostasis(TwoLayers):
    """Now and then, by what it sees, the model changes its own constants or weights in the middle of a run."""

    what = "nothing"

    def between(self, t: int, spk: Tensor) -> Tensor:
        with torch.no_grad():
            if t == 5 and self.what == "threshold":
                self.lif1.threshold = self.lif1.threshold * 1.5
            elif t == 5 and self.what == "in place":
                self.lif1.threshold.mul_(1.5)
            elif t == 5 and self.what == "weight":
                self.fc1.weight.mul_(0.9)
            elif t == 5 and self.what == "data":
                self.fc1.weight.data *= 0.9
        return spk


@pytest.mark.parametrize("what", ["threshold", "in place", "weight", "data"])
def test_constants_and_weights_that_change_within_a_run(what: str) -> None:
    net, twin = loud(Homeostasis()), loud(Homeostasis())
    twin.load_state_dict(net.state_dict())
    fast = dk.fused(net, example=spikes())
    fast(spikes())
    assert ahead_in(fast) == EVERYWHERE
    net.what = twin.what = what
    with torch.no_grad():
        for _ in range(2):
            for one, two in zip(fast(spikes()), twin(spikes()), strict=True):
                torch.testing.assert_close(one, two, rtol=0, atol=1e-12)
            for one, two in zip(net.state_dict().values(), twin.state_dict().values(), strict=True):
                torch.testing.assert_close(one, two, rtol=0, atol=1e-12)
    assert "lif1" not in ahead_in(fast) or "fc1" not in ahead_in(fast)


def test_what_cannot_be_taken_back_is_an_error() -> None:
    """A model that takes a gradient in the very run that has to be taken back."""

    class Early(TwoLayers):
        at = -1

        def __init__(self) -> None:
            super().__init__()
            self.own = nn.Parameter(torch.ones(1))

        def between(self, t: int, spk: Tensor) -> Tensor:
            return spk * 0.5 if t == self.at else spk

        def forward(self, x: Tensor) -> Any:
            if torch.is_grad_enabled():
                self.own.square().sum().backward()
            return super().forward(x)

    net = loud(Early())
    fast = dk.fused(net, example=spikes())
    net.at = 6
    with pytest.raises(dk.HistoryError, match="taken back"):
        fast(spikes())
    net.zero_grad()
    assert torch.equal(fast(spikes())[1], net(spikes())[1])  # step by step from now on


@pytest.mark.parametrize("old", [True, False])
def test_spectral_normalisation_changes_a_weight_at_every_step(old: bool) -> None:
    net = loud(TwoLayers())
    norm = nn.utils.spectral_norm if old else nn.utils.parametrizations.spectral_norm
    norm(net.fc2)
    for _ in range(200):  # until one more iteration changes nothing that an example could show
        net.fc2(torch.zeros(1, HIDDEN, dtype=torch.float64))
    fast = dk.fused(net, example=spikes())
    with torch.no_grad():
        for parameter in net.fc2.parameters():
            parameter += torch.rand_like(parameter)
    assert_equal_runs(net, fast, net, spikes())
    assert "fc2" not in ahead_in(fast)


def test_autocast_and_float32() -> None:
    net = loud(TwoLayers()).float()
    x = spikes().detach().float()
    fast = dk.fused(net, example=x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        one, two = fast(x)[1], net(x)[1]
    assert torch.equal(one, two) and one.dtype == two.dtype


def test_a_compiled_model_is_refused_and_a_fused_one_compiles() -> None:
    net = loud(TwoLayers())
    with pytest.raises(dk.ConfigError, match="the model itself"):
        dk.fused(torch.compile(net, backend="eager"), example=spikes())
    fast = dk.fused(net, example=spikes())
    torch._dynamo.reset()
    compiled = torch.compile(lambda x: fast(x)[1] * 2.0, backend="eager")
    torch.testing.assert_close(compiled(spikes()), net(spikes())[1] * 2.0, rtol=0, atol=1e-10)


def test_a_call_that_the_model_refuses_costs_nothing() -> None:
    net = loud(TwoLayers())
    fast = dk.fused(net, example=spikes())
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        fast(torch.zeros(TIME, BATCH, PRE + 1, dtype=torch.float64))
    assert_equal_runs(net, fast, net, spikes())
    assert ahead_in(fast) == EVERYWHERE


def test_a_number_that_changes_gradients_and_no_values_is_proven_anew() -> None:
    class Scaled(TwoLayers):
        def __init__(self) -> None:
            super().__init__()
            self.factor = 1.0

        def between(self, t: int, spk: Tensor) -> Tensor:
            return spk.detach() + self.factor * (spk - spk.detach())

    net = loud(Scaled())
    fast = dk.fused(net, example=spikes())
    for factor in (1.0, 2.0, 0.5, 1.0):
        net.factor = factor
        assert_equal_runs(net, fast, net, spikes())
        assert ahead_in(fast) == EVERYWHERE
    proofs = len(fast.known)
    for step in range(20):  # one that is another at every call costs no more than a few proofs
        net.factor = 1.0 + step
        fast(spikes())
    assert proofs == 3 < len(fast.known) <= 8


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_bare_model_within_activation_checkpointing(reentrant: bool) -> None:
    net = loud(TwoLayers())
    fast, found = dk.fused(net, example=spikes()), []
    for run in (net, fast, lambda x: checkpoint(fast, x, use_reentrant=reentrant)):
        net.zero_grad()
        x = spikes().detach().requires_grad_()
        run(x)[1].square().mean().backward()
        found.append([x.grad, *(p.grad.clone() for p in net.parameters())])
    for own, ahead, again in zip(*found, strict=True):
        torch.testing.assert_close(ahead, own, rtol=1e-9, atol=1e-12)
        assert torch.equal(ahead, again)
    assert ahead_in(fast) == set(fast.report())


def test_a_wrapped_model_within_activation_checkpointing_is_exact_or_refused() -> None:
    """It is refused where its own loop has left steps behind."""
    net = loud(TwoLayers())
    dk.wrap_(net, {"fc2": dk.FreeDelay(max_delay=4)}, example=spikes())
    fast = dk.fused(net, example=spikes())

    def gradients(run: Callable[[Tensor], Any]) -> list[Tensor]:
        net.zero_grad()
        run(spikes())[1].mean().backward()
        return [p.grad.clone() for p in net.parameters() if p.grad is not None]

    found = gradients(lambda x: checkpoint(fast, x, use_reentrant=False))
    for one, own in zip(found, gradients(net), strict=True):
        torch.testing.assert_close(one, own, rtol=1e-9, atol=1e-12)
    with pytest.raises(dk.HistoryError, match="leave delayed connections out of activation checkpointing"):
        gradients(lambda x: checkpoint(fast, x, use_reentrant=False))
    assert_equal_runs(net, fast, net, spikes())


def test_an_error_of_many_lines_is_told_in_one() -> None:
    def fails(*_: Any) -> Tensor:
        raise RuntimeError("first line\nsecond line")

    net = loud(TwoLayers())
    fast = dk.fused(net, example=spikes())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("delaykit.wrapping.fused.units.linear", fails)
        assert_equal_runs(net, fast, net, spikes())
    assert "first line" in str(fast) and "second line" not in str(fast)


def test_threads_take_turns() -> None:
    net = loud(TwoLayers())
    dk.wrap_(net, {"fc*": dk.FreeDelay(max_delay=4)}, example=spikes())
    fast, batches = dk.fused(net, example=spikes()), [spikes() for _ in range(8)]
    expected = [fast(x)[1] for x in batches]
    with ThreadPoolExecutor(4) as pool:
        for one, other in zip(pool.map(fast, batches), expected, strict=True):
            assert torch.equal(one[1], other)
    assert ahead_in(fast) == set(fast.report())


def test_layers_that_are_no_units_are_told_and_so_is_torch_jit_trace() -> None:
    fold = nn.utils.parametrizations.weight_norm
    net = nn.Sequential(
        fold(nn.Linear(3, 4)), snn.Leaky(beta=0.9, init_hidden=True), nn.Bilinear(4, 4, 2), nn.Linear(2, 2)
    )
    net[2].forward = lambda x: nn.functional.bilinear(x, x, net[2].weight, net[2].bias)
    fast, x = dk.fused(net, example=torch.rand(6, 2, 3)), torch.rand(6, 2, 3)
    rows = [line.split(maxsplit=2) for line in str(fast).splitlines()[1:5]]
    own = "as the model's own code"
    assert rows == [["0", "ParametrizedLinear", own], ["1", "Leaky", "ahead"], ["2", "Bilinear", own], rows[3]]
    assert rows[3][:2] == ["3", "Linear"]
    torch.testing.assert_close(fast(x), fast.step_by_step(x))
    with pytest.raises(dk.ConfigError, match=r"torch.jit.trace.*unwrap_"):
        torch.jit.trace(fast, x)
