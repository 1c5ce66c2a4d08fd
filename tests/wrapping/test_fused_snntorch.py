"""``dk.fused`` on models of snnTorch, in the shapes that people write: values, all gradients, states."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import snntorch as snn
import torch
from fused_cases import BATCH, HIDDEN, OUT, PRE, TIME, assert_equal_runs, assert_fused, leaky, loud, spikes
from torch import Tensor, nn
from torch.nn import functional as F

import delaykit as dk
from delaykit.testing.nets.reference import surrogate_spike


class Base(nn.Module):
    def __init__(self, **options: object) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(PRE, HIDDEN), nn.Linear(HIDDEN, OUT)
        self.lif1, self.lif2 = leaky(**options), leaky(0.7, **options)


class ExplicitStates(Base):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mem1, mem2 = self.lif1.reset_mem(), self.lif2.reset_mem()
        spk_rec, mem_rec = [], []
        for step in range(x.size(0)):
            spk1, mem1 = self.lif1(self.fc1(x[step]), mem1)
            spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
            spk_rec.append(spk2)
            mem_rec.append(mem2)
        return torch.stack(spk_rec), torch.stack(mem_rec)


class ZerosAndIteration(Base):
    def forward(self, x: Tensor) -> Tensor:
        mem1 = torch.zeros(x.shape[1], HIDDEN, dtype=x.dtype)
        mem2 = torch.zeros(x.shape[1], OUT, dtype=x.dtype)
        total = 0
        for step in x:
            spk1, mem1 = self.lif1(self.fc1(step), mem1)
            spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
            total = total + spk2 + 0.1 * mem2
        return total


class HiddenStates(Base):
    def __init__(self) -> None:
        super().__init__(init_hidden=True)

    def forward(self, x: Tensor) -> Tensor:
        self.lif1.reset_mem()
        self.lif2.reset_mem()
        return torch.stack([self.lif2(self.fc2(self.lif1(self.fc1(step)))) for step in x])


class OmittedStates(Base):
    def forward(self, x: Tensor) -> Tensor:
        self.lif1.reset_mem()
        self.lif2.reset_mem()
        rec = []
        for step in x:
            spk, _ = self.lif1(self.fc1(step))
            spk, mem = self.lif2(self.fc2(spk))
            rec.append(spk + mem)
        return torch.stack(rec)


class BatchFirst(Base):
    def forward(self, x: Tensor) -> Tensor:
        mem1, mem2 = self.lif1.reset_mem(), self.lif2.reset_mem()
        rec = []
        for t in range(x.shape[1]):
            spk1, mem1 = self.lif1(self.fc1(x[:, t]), mem1)
            spk2, mem2 = self.lif2(self.fc2(spk1), mem=mem2)
            rec.append(spk2 + mem2)
        return torch.stack(rec, 1)


class ConstantInput(Base):
    """A still picture, shown at every step."""

    def forward(self, x: Tensor) -> Tensor:
        mem1, mem2 = self.lif1.reset_mem(), self.lif2.reset_mem()
        rec = []
        for _ in range(TIME):
            spk1, mem1 = self.lif1(self.fc1(x[0].flatten(1)), mem1)
            spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
            rec.append(spk2 + mem2)
        return torch.stack(rec)


class SkipAndScale(Base):
    """A skip connection, a normalisation in evaluation, an operation between layers, two inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.skip, self.norm = nn.Linear(PRE, OUT), nn.BatchNorm1d(HIDDEN)
        self.scale = nn.Parameter(torch.tensor(1.3))

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        mem1, mem2 = self.lif1.reset_mem(), self.lif2.reset_mem()
        rec = []
        for t in range(len(x)):
            spk1, mem1 = self.lif1(self.norm(self.fc1(x[t] + y[t])), mem1)
            spk2, mem2 = self.lif2(self.fc2(F.relu(spk1 * self.scale)) + self.skip(y[t]), mem2)
            rec.append(spk2 + mem2)
        return torch.stack(rec), mem1


class Membranes(Base):
    """The membrane goes on in place of the spikes; a loss at every step, inside the loop."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mem1, mem2 = self.lif1.reset_mem(), self.lif2.reset_mem()
        loss, count = torch.zeros((), dtype=x.dtype), torch.zeros((), dtype=x.dtype)
        for step in x:
            spk1, mem1 = self.lif1(self.fc1(step), mem1)
            spk2, mem2 = self.lif2(self.fc2(mem1), mem2)
            loss = loss + F.mse_loss(mem2, torch.ones_like(mem2))
            count = count + spk2.sum()
        return loss, count


class EarlyEnd(Base):
    """Control flow that reads values: it sees the real ones."""

    def forward(self, x: Tensor) -> Tensor:
        mem1, mem2 = self.lif1.reset_mem(), self.lif2.reset_mem()
        total, fired = torch.zeros(x.shape[1], OUT, dtype=x.dtype), 0.0
        for step in x:
            spk1, mem1 = self.lif1(self.fc1(step), mem1)
            spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
            total = total + spk2 + mem2
            fired += spk1.sum().item()
            if fired > 60:
                break
        return total


class Modules(nn.Module):
    """Layers in a ModuleList, told apart by what they have."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(PRE, HIDDEN), leaky(), nn.Linear(HIDDEN, OUT), leaky()])

    def forward(self, x: Tensor) -> Tensor:
        states = {k: layer.reset_mem() for k, layer in enumerate(self.layers) if hasattr(layer, "reset_mem")}
        rec = []
        for step in x:
            for k, layer in enumerate(self.layers):
                if k in states:
                    step, states[k] = layer(step, states[k])
                else:
                    step = layer(step)
            rec.append(step)
        return torch.stack(rec) + states[3]


class Recurrent(nn.Module):
    def __init__(self, kind: type, **options: object) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(PRE, HIDDEN), nn.Linear(HIDDEN, OUT)
        options |= {"threshold": 0.5, "spike_grad": surrogate_spike}
        self.rec = kind(linear_features=HIDDEN, **options)
        self.out = snn.Synaptic(alpha=0.6, beta=0.7, threshold=0.5, spike_grad=surrogate_spike)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        states, syn, mem = self.rec.reset_mem(), *self.out.reset_mem()
        rec = []
        for step in x:
            states = self.rec(self.fc1(step), *states)
            spk, syn, mem = self.out(self.fc2(states[0]), syn, mem)
            rec.append(spk + mem)
        return torch.stack(rec), *states, syn, mem


class Convolution(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.pool, self.lif1 = nn.Conv2d(1, 3, 3), nn.MaxPool2d(2), leaky()
        self.flat, self.fc, self.lif2 = nn.Flatten(), nn.Linear(27, OUT), leaky(0.7)

    def forward(self, x: Tensor) -> Tensor:
        mem1, mem2 = self.lif1.reset_mem(), self.lif2.reset_mem()
        rec = []
        for step in x:
            spk1, mem1 = self.lif1(self.pool(self.conv(step)), mem1)
            spk2, mem2 = self.lif2(self.fc(self.flat(spk1)), mem2)
            rec.append(spk2 + mem2)
        return torch.stack(rec)


class Functional(Base):
    """Pooling and flattening by functions, and the same Linear twice a step."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Linear(PRE, PRE)

    def forward(self, x: Tensor) -> Tensor:
        mem1, mem2 = self.lif1.reset_mem(), self.lif2.reset_mem()
        rec = []
        for step in x:
            cur = self.shared(self.shared(step).clamp(min=0))
            spk1, mem1 = self.lif1(self.fc1(F.avg_pool1d(cur.unsqueeze(1), 3, 1, 1).squeeze(1)), mem1)
            spk2, mem2 = self.lif2(self.fc2(torch.cat([spk1[:, :3], mem1[:, 3:]], 1)), mem2)
            rec.append(spk2 + mem2)
        return torch.stack(rec)


MODELS: dict[str, Callable[[], nn.Module]] = {
    c.__name__: c
    for c in (ExplicitStates, ZerosAndIteration, HiddenStates, OmittedStates, ConstantInput, Membranes, EarlyEnd,
              Modules, Functional)
} | {
    "RLeaky": lambda: Recurrent(snn.RLeaky, beta=0.8),
    "RLeaky, zero": lambda: Recurrent(snn.RLeaky, beta=0.8, reset_mechanism="zero"),
    "RSynaptic": lambda: Recurrent(snn.RSynaptic, alpha=0.5, beta=0.8),
}  # fmt: skip


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(11)


@pytest.mark.parametrize("name", MODELS)
def test_a_bare_model_runs_ahead_and_equals_its_own_loop(name: str) -> None:
    fast = assert_fused(loud(MODELS[name]()), spikes())
    for time, batch in ((TIME + 4, 2), (TIME, 1)):  # never seen: the same recipes hold
        x = spikes(time, batch)
        if name != "ConstantInput":
            assert_equal_runs(fast.net, fast, fast.step_by_step, x)


@pytest.mark.parametrize("granularity", ["axonal", "dendritic", "synaptic"])
@pytest.mark.parametrize("name", MODELS)
def test_a_wrapped_model_runs_ahead_and_equals_its_own_loop(name: str, granularity: str) -> None:
    net, rules = loud(MODELS[name]()), {"fc*": dk.FreeDelay(granularity, max_delay=4)}
    if name == "Modules":
        rules = {"layers.*": dk.FreeDelay(granularity, max_delay=4)}
    elif name.startswith("R"):
        rules["rec.recurrent"] = dk.FreeDelay(granularity, max_delay=3)
    dk.wrap_(net, rules, example=spikes(), generator=torch.Generator().manual_seed(2))
    fast = assert_fused(net, spikes())
    assert dk.status(net)
    x = spikes(TIME + 2, 2)
    assert_equal_runs(net, fast, fast.step_by_step, x)


@pytest.mark.parametrize("wrapped", [False, True])
def test_batch_first(wrapped: bool) -> None:
    net, x = loud(BatchFirst()), spikes(BATCH, TIME)
    if wrapped:
        dk.wrap_(net, {"fc*": dk.FreeDelay("axonal", max_delay=4)}, example=x)
    fast = assert_fused(net, x)
    assert_equal_runs(net, fast, fast.step_by_step, spikes(2, TIME + 3))


@pytest.mark.parametrize("wrapped", [False, True])
def test_several_inputs_a_skip_connection_and_normalisation_in_evaluation(wrapped: bool) -> None:
    net, x, y = loud(SkipAndScale()).eval(), spikes(), spikes(TIME, BATCH, PRE)
    if wrapped:
        dk.wrap_(net, {"fc*": dk.FreeDelay("synaptic", max_delay=4)}, example=(x, y))
    assert_fused(net, x, y)


@pytest.mark.parametrize("wrapped", [False, True])
def test_convolution_pooling_and_flattening(wrapped: bool) -> None:
    net, x = loud(Convolution()), spikes(TIME, BATCH, 1, 8, 8)
    if wrapped:
        dk.wrap_(net, {"conv": dk.FreeDelay("axonal", max_delay=4), "fc": dk.FreeDelay("synaptic", max_delay=4)}, x)
    assert_fused(net, x)


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_sequential_with_hidden_states_takes_whole_sequences(wrapped: bool) -> None:
    net = nn.Sequential(
        nn.Linear(PRE, HIDDEN), leaky(init_hidden=True), nn.Linear(HIDDEN, OUT), leaky(init_hidden=True, output=True)
    )
    loud(net)
    if wrapped:
        dk.wrap_(net, {"*": dk.FreeDelay("axonal", max_delay=4)}, example=lambda: [net(x) for x in spikes()])
    fast = assert_fused(net, spikes())

    def by_hand(x: Tensor) -> tuple[Tensor, ...]:
        for layer in net:
            if isinstance(layer, snn.Leaky):
                layer.reset_mem()
        return tuple(torch.stack(r) for r in zip(*(net(step) for step in x), strict=True))

    assert_equal_runs(net, fast, by_hand, spikes(TIME + 1, 2))


def test_a_recurrent_loop_that_delaykit_added_runs_ahead() -> None:
    net = loud(ExplicitStates())
    dk.wrap_(net, {"lif1": dk.Recurrent(dk.FreeDelay("synaptic", max_delay=3))}, example=spikes())
    assert_fused(net, spikes())


def test_learned_leaks_and_thresholds_get_their_gradients() -> None:
    net = loud(ExplicitStates(learn_beta=True, learn_threshold=True, reset_mechanism="zero"))
    fast = assert_fused(net, spikes())
    fast(spikes())[1].sum().backward()
    assert net.lif1.beta.grad is not None and net.lif1.threshold.grad is not None


def test_without_gradients_the_values_are_the_same() -> None:
    net = loud(ExplicitStates())
    fast = dk.fused(net, example=spikes())
    with torch.no_grad():
        for one, two in zip(fast(spikes()), net(spikes()), strict=True):
            torch.testing.assert_close(one, two, rtol=0, atol=1e-12)


def test_training_goes_on_through_the_same_parameters() -> None:
    net = loud(ExplicitStates())
    dk.wrap_(net, {"fc*": dk.FreeDelay("axonal", max_delay=4)}, example=spikes())
    fast = dk.fused(net, example=spikes())
    optimizer = torch.optim.SGD(dk.param_groups(net, lr=0.1, delay_lr=0.1))
    dk.attach(optimizer, net)
    losses = []
    for _ in range(4):
        optimizer.zero_grad()
        loss = (fast(spikes())[1] - 0.3).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        assert_equal_runs(net, fast, net, spikes())
    assert losses[-1] < losses[0]


class LayerByLayer(Base):
    def forward(self, x: Tensor) -> Tensor:
        spikes, _ = dk.rollout(self.lif1, self.fc1(x))
        return dk.rollout(self.lif2, self.fc2(spikes))[1]


def test_a_model_that_takes_whole_sequences_already_runs_as_it_is() -> None:
    net = loud(LayerByLayer())
    fast = dk.fused(net, example=spikes())
    assert all("the model runs as it is" in how for how in fast.report().values())
    assert torch.equal(fast(spikes()), net(spikes()))
