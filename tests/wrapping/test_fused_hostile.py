"""What a model may do that a run ahead cannot foresee: the result is its own loop's, and the report says why."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import snntorch as snn
import torch
from fused_cases import EVERYWHERE, HIDDEN, OUT, TIME, TwoLayers, ahead_in, assert_equal_runs, loud, spikes
from torch import Tensor, nn
from torch.nn import functional as F

import delaykit as dk
from delaykit.planning.snapshot import Snapshot
from delaykit.wrapping.fused.glue import Follower


class DropoutEachStep(TwoLayers):
    def between(self, t: int, spk: Tensor) -> Tensor:
        return F.dropout(spk, 0.3, self.training)


class DropoutModule(TwoLayers):
    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.3)

    def between(self, t: int, spk: Tensor) -> Tensor:
        return self.drop(spk)


class Noise(TwoLayers):
    def between(self, t: int, spk: Tensor) -> Tensor:
        return spk + 0.1 * torch.randn(spk.shape, dtype=spk.dtype)


class NormTraining(TwoLayers):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(HIDDEN)

    def between(self, t: int, spk: Tensor) -> Tensor:
        return self.norm(spk)


class FunctionalNormTraining(TwoLayers):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(HIDDEN))
        self.register_buffer("var", torch.ones(HIDDEN))

    def between(self, t: int, spk: Tensor) -> Tensor:
        return F.batch_norm(spk, self.mean, self.var, training=True)


class OtherAtLateSteps(TwoLayers):
    def between(self, t: int, spk: Tensor) -> Tensor:
        return spk * 0.5 if t > 4 else spk


class DetachedAtLateSteps(TwoLayers):
    def between(self, t: int, spk: Tensor) -> Tensor:
        return spk.detach() if t > 4 else spk


class ByValue(TwoLayers):
    def between(self, t: int, spk: Tensor) -> Tensor:
        return spk if int(spk.sum()) % 2 else spk * 0.5


class ByCount(TwoLayers):
    def between(self, t: int, spk: Tensor) -> Tensor:
        return spk * (t + 1)


class MembraneEdited(TwoLayers):
    def state(self, t: int, mem: Tensor) -> Tensor:
        return mem * 0.5


class MembraneDetached(TwoLayers):
    def state(self, t: int, mem: Tensor) -> Tensor:
        return mem.detach() if t % 3 == 2 else mem


class MembraneEditedInPlace(TwoLayers):
    def state(self, t: int, mem: Tensor) -> Tensor:
        with torch.no_grad():
            mem[:, 0] = 0.0
        return mem


class MembraneEditedInPlaceLate(TwoLayers):
    def state(self, t: int, mem: Tensor) -> Tensor:
        if t == 6:
            mem.data[:, 0] = 0.0
        return mem


class ResetInTheMiddle(TwoLayers):
    def state(self, t: int, mem: Tensor) -> Tensor:
        return self.lif1.reset_mem() if t == 4 else mem


class SkippedSteps(TwoLayers):
    def forward(self, x: Tensor) -> Tensor:
        mem1, mem2 = self.lif1.reset_mem(), self.lif2.reset_mem()
        total = 0
        for t in range(len(x)):
            spk1, mem1 = self.lif1(self.fc1(x[t]), mem1)
            if t % 2:
                spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
                total = total + spk2 + mem2
        return total


class Feedback(TwoLayers):
    """The output of a step goes back into the first layer at the next one."""

    def __init__(self) -> None:
        super().__init__()
        self.back = nn.Linear(OUT, HIDDEN)

    def forward(self, x: Tensor) -> Tensor:
        mem1, mem2 = self.lif1.reset_mem(), self.lif2.reset_mem()
        spk2, rec = torch.zeros(x.shape[1], OUT, dtype=x.dtype), []
        for step in x:
            spk1, mem1 = self.lif1(self.fc1(step) + self.back(spk2), mem1)
            spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
            rec.append(spk2 + mem2)
        return torch.stack(rec)


class OwnTrace(TwoLayers):
    """A trace of the spikes, kept by the model's own operations."""

    def forward(self, x: Tensor) -> Tensor:
        mem1, mem2 = self.lif1.reset_mem(), self.lif2.reset_mem()
        trace, rec = torch.zeros(x.shape[1], HIDDEN, dtype=x.dtype), []
        for step in x:
            spk1, mem1 = self.lif1(self.fc1(step), mem1)
            trace = 0.8 * trace + spk1
            spk2, mem2 = self.lif2(self.fc2(trace), mem2)
            rec.append(spk2 + mem2)
        return torch.stack(rec)


class TwoSequences(TwoLayers):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)[1] + super().forward(x.flip(0))[1]


class Poisson(TwoLayers):
    """Random spikes drawn before the loop."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return super().forward(x * (torch.rand(x.shape, dtype=x.dtype) < 0.7))


class ShortWindows(TwoLayers):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return super().forward(x[: len(x) - 3])


class Hooked(TwoLayers):
    def __init__(self) -> None:
        super().__init__()
        self.fc2.register_full_backward_hook(lambda module, inner, outer: (inner[0] * 2.0,))


class WeightsChanged(TwoLayers):
    """A forward that trains by itself."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            self.fc1.weight.data = self.fc1.weight.data * 0.9
        return super().forward(x)


class Doubled(TwoLayers):
    """A forward hook changes what a layer returns."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1.register_forward_hook(lambda module, given, output: output * 1.5)


AHEAD: dict[type[nn.Module], set[str]] = {
    DropoutEachStep: {"fc1", "lif1"},
    DropoutModule: {"fc1", "lif1"},
    Noise: {"fc1", "lif1"},
    NormTraining: {"fc1", "lif1"},
    FunctionalNormTraining: {"fc1", "lif1"},
    OtherAtLateSteps: {"fc1", "lif1"},
    DetachedAtLateSteps: {"fc1", "lif1"},
    ByValue: {"fc1", "lif1"},
    ByCount: EVERYWHERE,
    MembraneEdited: {"fc1"},
    MembraneDetached: {"fc1"},
    MembraneEditedInPlace: {"fc1"},
    ResetInTheMiddle: {"fc1"},
    SkippedSteps: {"fc1", "lif1"},
    Feedback: {"fc1"},
    OwnTrace: {"fc1", "lif1"},
    TwoSequences: set(),
    Poisson: EVERYWHERE,
    ShortWindows: EVERYWHERE,
    Hooked: {"fc1", "lif1"},
    WeightsChanged: set(),
    Doubled: EVERYWHERE,
}


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(11)


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("cls", AHEAD, ids=lambda cls: cls.__name__)
def test_the_result_is_the_models_own(cls: Callable[[], nn.Module], wrapped: bool) -> None:
    net = loud(cls())
    if wrapped:
        dk.wrap_(net, {"fc*": dk.FreeDelay("axonal", max_delay=4)}, example=spikes())
    fast = dk.fused(net, example=spikes())
    for x in (spikes(), spikes(TIME + 2, 2), spikes()):
        assert_equal_runs(net, fast, net, x)
    before, found = Snapshot(net), []
    for run in (net, fast):  # twice in a row: what one run leaves in the model, the next one finds
        torch.manual_seed(4)
        found.append([*run(spikes()), *run(spikes()), *(b.clone() for b in net.buffers())])
        before.restore()
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=1e-9)
    emptied = wrapped and cls is ResetInTheMiddle  # the line in front of a neuron that is reset begins anew with it
    assert ahead_in(fast) == (set() if emptied else AHEAD[cls]), str(fast)


def test_a_silent_edit_of_the_data_is_found() -> None:
    net = loud(MembraneEditedInPlaceLate())
    fast = dk.fused(net, example=spikes())
    with torch.no_grad():
        for one, two in zip(fast(spikes()), net(spikes()), strict=True):
            torch.testing.assert_close(one, two, rtol=0, atol=1e-12)


GLOBAL = torch.full((HIDDEN,), 0.5, dtype=torch.float64)


@pytest.mark.parametrize("kept", [False, True])
def test_tensors_of_the_model_are_those_of_today(kept: bool) -> None:
    class Factor(TwoLayers):
        def __init__(self) -> None:
            super().__init__()
            self.factor = torch.full((HIDDEN,), 0.5, dtype=torch.float64)  # neither a parameter nor a buffer

        def between(self, t: int, spk: Tensor) -> Tensor:
            return spk * (self.factor if kept else GLOBAL)

    net = loud(Factor())
    fast = dk.fused(net, example=spikes())
    assert (fast.report()["fc2"] == "ahead") is kept
    with torch.no_grad():
        net.factor = net.factor * 3
        for parameter in net.parameters():
            parameter.mul_(1.1)
    assert_equal_runs(net, fast, net, spikes())
    assert (fast.report()["fc2"] == "ahead") is kept


def test_dropout_fixed_for_a_sequence_runs_ahead() -> None:
    class Fixed(TwoLayers):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            self.mask = F.dropout(torch.ones(x.shape[1], HIDDEN, dtype=x.dtype), 0.3, self.training)
            return super().forward(x)

        def between(self, t: int, spk: Tensor) -> Tensor:
            return spk * self.mask

    net = loud(Fixed())
    fast = dk.fused(net, example=spikes())
    assert_equal_runs(net, fast, net, spikes())
    assert set(fast.report().values()) == {"ahead"}, str(fast)


def test_delay_dropout_draws_the_masks_of_the_step_loop() -> None:
    net = loud(TwoLayers())
    dk.wrap_(net, {"fc*": dk.FreeDelay("axonal", max_delay=4)}, example=spikes())
    for site in dk.wrapped_sites(net):
        site.synapse.delay.dropout = 0.4
    fast = dk.fused(net, example=spikes())
    assert_equal_runs(net, fast, net, spikes())
    assert set(fast.report().values()) == {"ahead"}, str(fast)


def test_the_model_is_left_as_it_was() -> None:
    net = loud(TwoLayers())
    before = {k: v.clone() for k, v in net.state_dict().items()}
    attributes = {path: sorted(vars(m)) for path, m in net.named_modules()}
    state = torch.get_rng_state()
    fast = dk.fused(net, example=spikes())
    assert torch.equal(state, torch.get_rng_state())
    fast(spikes())
    assert {path: sorted(vars(m)) for path, m in net.named_modules()} == attributes
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert all(p.grad is None for p in net.parameters())


def test_train_and_eval_are_proven_apart() -> None:
    net = loud(DropoutModule())
    fast = dk.fused(net, example=spikes())
    assert "draws a new mask" in str(fast)
    net.eval()
    assert_equal_runs(net, fast, net, spikes())
    assert set(fast.report().values()) == {"ahead"}


def test_a_check_on_a_real_batch_finds_what_the_example_did_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run ahead that takes the numbers of the example, a planted fault, is found by it alone."""
    monkeypatch.setattr(Follower, "first", lambda self, recipe, given: recipe)
    monkeypatch.setattr(Follower, "same", lambda *_: True)

    class Scaled(TwoLayers):
        def __init__(self) -> None:
            super().__init__()
            self.factor = [1.0]

        def between(self, t: int, spk: Tensor) -> Tensor:
            return spk.detach() + self.factor[0] * (spk - spk.detach())  # the values never tell

    net = loud(Scaled())
    fast = dk.fused(net, example=spikes(), check=2)
    fast(spikes())
    net.factor[0] = 2.0
    with pytest.raises(dk.HistoryError, match="gradient"):
        fast(spikes())


@pytest.mark.parametrize("check", ["often", 0, True])
def test_an_unknown_check_is_refused(check: object) -> None:
    with pytest.raises(dk.ConfigError, match="check="):
        dk.fused(nn.Linear(2, 2), check=check)  # type: ignore[arg-type]


def test_a_float32_model_of_the_librarys_own_surrogate_is_proven_in_float64() -> None:
    class Plain(TwoLayers):
        def __init__(self) -> None:
            super().__init__()
            self.lif1, self.lif2 = snn.Leaky(beta=0.8, threshold=0.5), snn.Leaky(beta=0.7, threshold=0.5)

    net = loud(Plain()).float()
    x = spikes().detach().float().requires_grad_()
    fast = dk.fused(net, example=x)
    assert fast.precision == "float64" and set(fast.report().values()) == {"ahead"}
    assert_equal_runs(net, fast, net, x, near=1e-5)


@pytest.mark.parametrize("hook", ["register_full_backward_hook", "register_full_backward_pre_hook"])
def test_backward_hooks_that_come_later_are_heard(hook: str) -> None:
    net = loud(TwoLayers())
    fast = dk.fused(net, example=spikes())
    fast(spikes())
    handle = getattr(net.fc2, hook)(lambda module, *gradients: (gradients[0][0] * 0.5,))
    assert_equal_runs(net, fast, net, spikes())
    assert "backward hooks" in fast.report()["fc2"]
    handle.remove()
    assert_equal_runs(net, fast, net, spikes())


def test_a_reset_mechanism_that_is_set_later_runs_step_by_step() -> None:
    net = loud(TwoLayers())
    fast = dk.fused(net, example=spikes())
    net.lif1.reset_mechanism = "zero"  # snnTorch's neuron goes on with the step that it chose when it was made
    assert_equal_runs(net, fast, net, spikes())
    assert fast.report()["lif1"] != "ahead"
