"""HetSyn around neurons of snnTorch and Norse: V = sum I - J, by plain implementations of every reset."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import delaykit as dk
from delaykit.testing.nets.reference import surrogate_spike
from delaykit_hetsyn import HetSyn

snn = pytest.importorskip("snntorch", reason="needs snnTorch, the extra `snntorch`")
TIME, BATCH, PRE, POST, BETA, ALPHA, THETA = 60, 4, 12, 7, 0.85, 0.6, 0.875  # a threshold that float32 holds


def spikes(dtype: torch.dtype = torch.float64) -> Tensor:
    return (torch.rand(TIME, BATCH, PRE, generator=torch.Generator().manual_seed(1)) < 0.15).to(dtype)


class Net(nn.Module):
    """One connection, one neuron, the loop inside; every state of every step comes back."""

    def __init__(self, neuron: nn.Module, gain: float = 3.0, bias: bool = True) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(3)
            self.fc = nn.Linear(PRE, POST, bias=bias)
        with torch.no_grad():
            self.fc.weight.mul_(gain)
        self.lif = neuron

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        state = self.lif.reset_mem()
        state = state if isinstance(state, tuple) else (state,)
        steps = []
        for step in x:
            out = self.lif(self.fc(step), *state)
            state = out[-len(state) :]
            steps.append((out[0], *state))
        return tuple(torch.stack(column) for column in zip(*steps, strict=True))


def neuron(kind: str, **options: Any) -> nn.Module:
    own: dict[str, Any] = {"beta": BETA, "threshold": THETA, "spike_grad": surrogate_spike, **options}
    if kind in ("Synaptic", "RSynaptic"):
        own["alpha"] = ALPHA
    if kind.startswith("R"):
        own["linear_features"] = POST
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return getattr(snn, kind)(**own)


def stir_(net: nn.Module, seed: int = 2) -> None:
    """Give every decay a value of its own."""
    for module in net.modules():
        if hasattr(module, "r"):
            generator = torch.Generator().manual_seed(seed)
            module.r.data = torch.rand(module.r.shape, generator=generator).to(module.r) * 0.95


def wrapped(kind: str, dtype: torch.dtype = torch.float64, **options: Any) -> tuple[nn.Module, nn.Module]:
    bare = Net(neuron(kind, **options), 20.0 if kind == "Lapicque" else 3.0).to(dtype)
    rules = {"fc": HetSyn()} | ({"lif.recurrent": HetSyn()} if kind.startswith("R") else {})
    return bare, dk.wrap(bare, rules, example=spikes(dtype)[:3])


RESETS = [("subtract", True), ("zero", True), ("none", True), ("subtract", False), ("zero", False)]
# Lapicque has no such reset, and snnTorch's RSynaptic fails with it.
CASES = [(k, r, True) for k in ("Leaky", "RLeaky", "Synaptic", "RSynaptic", "Lapicque") for r, d in RESETS if d]
CASES += [(k, r, False) for k in ("Leaky", "RLeaky", "Synaptic") for r, d in RESETS if not d]


@pytest.mark.parametrize(("kind", "reset", "delayed"), CASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nothing_changes_to_the_bit_at_the_neurons_own_decay(
    kind: str, reset: str, delayed: bool, dtype: torch.dtype
) -> None:
    options = {"reset_mechanism": reset} | ({} if kind == "Lapicque" else {"reset_delay": delayed})
    bare, net = wrapped(kind, dtype, **options)
    with torch.no_grad():
        before, after = bare(spikes(dtype)), net(spikes(dtype))
    assert reset == "none" or before[0].sum() > 40
    for one, two in zip(before, after, strict=True):
        assert torch.equal(one, two)


class Currents:
    """``I_ji[t] = r_ji I_ji[t-1] + w_ji z_i[t]`` for each synapse, and a bias that decays with kappa; naively."""

    def __init__(self, connection: Any, kappa: Tensor) -> None:
        self.w, self.bias, self.kappa = connection.weight, connection.bias, kappa
        self.r = connection.dk.heterogeneity.r
        self.current: Any = 0.0
        self.constant: Any = 0.0

    def __call__(self, z: Tensor) -> Tensor:
        self.current = self.r * self.current + self.w * z.unsqueeze(1)
        self.constant = self.kappa * self.constant + self.bias
        return self.current.sum(-1) + self.constant


def plain_subtract(total: Tensor, kappa: Tensor) -> tuple[Tensor, Tensor]:
    """J[t] = kappa J[t-1] + theta s[t-1]."""
    j = s = torch.zeros_like(total[0])
    out = []
    for current in total:
        j = kappa * j + THETA * s.detach()
        v = current - j
        s = surrogate_spike(v - THETA)
        out.append((s, v))
    return torch.stack([s for s, _ in out]), torch.stack([v for _, v in out])


def plain_zero(total: Tensor, kappa: Tensor) -> tuple[Tensor, Tensor]:
    """J[t] = kappa (J[t-1] + s[t-1] V[t-1])."""
    j = s = v = torch.zeros_like(total[0])
    out = []
    for current in total:
        j = kappa * (j + s.detach() * v)
        v = current - j
        s = surrogate_spike(v - THETA)
        out.append((s, v))
    return torch.stack([s for s, _ in out]), torch.stack([v for _, v in out])


def plain_at_once(total: Tensor, kappa: Tensor) -> tuple[Tensor, Tensor]:
    """J[t] = kappa J[t-1] + theta s[t]: the reset of snnTorch's ``reset_delay=False``.

    The spike is that of the membrane before; a membrane left above threshold counts once more, and is taken back.
    """
    j = v = torch.zeros_like(total[0])
    out = []
    for current in total:
        again = (v > THETA).to(v.dtype)
        s = surrogate_spike(current - kappa * j - THETA * again - THETA)
        j = kappa * j + THETA * s
        v = current - j
        out.append((s, v))
    return torch.stack([s for s, _ in out]), torch.stack([v for _, v in out])


PLAIN = {("subtract", True): plain_subtract, ("zero", True): plain_zero, ("subtract", False): plain_at_once}


@pytest.mark.parametrize("how", list(PLAIN))
def test_the_membrane_is_the_sum_of_currents_minus_the_reset(how: tuple[str, bool]) -> None:
    _, net = wrapped("Leaky", reset_mechanism=how[0], reset_delay=how[1])
    stir_(net)
    found = net(spikes())
    run = Currents(net.fc, net.lif.beta)
    fired, membrane = PLAIN[how](torch.stack([run(z) for z in spikes()]), net.lif.beta)
    mismatches = int((found[0] != fired).sum())
    assert fired.sum() > 40 and mismatches == 0
    torch.testing.assert_close(found[1], membrane, rtol=0, atol=1e-10)


@pytest.mark.parametrize("delayed", [True, False])
@pytest.mark.parametrize("reset", ["subtract", "zero"])
def test_a_recurrent_membrane_is_the_sum_of_both_connections_currents(reset: str, delayed: bool) -> None:
    _, net = wrapped("RLeaky", reset_mechanism=reset, reset_delay=delayed)
    stir_(net)
    found = net(spikes())
    feed, back = Currents(net.fc, net.lif.beta), Currents(net.lif.recurrent, net.lif.beta)
    before = torch.zeros(BATCH, POST, dtype=torch.float64)
    beta, membrane, mismatches = net.lif.beta, torch.zeros_like(before), 0
    j = torch.zeros_like(before)
    for t, z in enumerate(spikes()):
        total = feed(z) + back(before)
        wipe = (membrane > THETA).to(total.dtype)
        if reset == "subtract":
            unreset = total - beta * j - THETA * wipe
        else:  # RLeaky's reset to zero wipes the input of its step, too
            unreset = (1 - wipe) * (total - beta * j)
        fired = (unreset > THETA).to(total.dtype)
        if delayed:
            membrane = unreset
        else:
            membrane = unreset - (fired - wipe) * (THETA if reset == "subtract" else total - beta * j)
        j = total - membrane
        mismatches += int((found[0][t] != fired).sum())
        torch.testing.assert_close(found[-1][t], membrane, rtol=0, atol=1e-10)
        before = fired
    assert mismatches == 0 and found[0].sum() > 40


@pytest.mark.parametrize("reset", ["subtract", "none"])
def test_a_synaptic_current_is_the_sum_of_currents_and_the_membrane_is_its_own(reset: str) -> None:
    _, net = wrapped("Synaptic", reset_mechanism=reset)
    stir_(net)
    found = net(spikes())
    run, membrane = Currents(net.fc, net.lif.alpha), torch.zeros(BATCH, POST, dtype=torch.float64)
    for t, z in enumerate(spikes()):
        total = run(z)
        wipe = THETA * (membrane > THETA).to(total.dtype) if reset == "subtract" else 0.0
        membrane = net.lif.beta * membrane + total - wipe
        torch.testing.assert_close(found[1][t], total, rtol=0, atol=1e-10)
        torch.testing.assert_close(found[2][t], membrane, rtol=0, atol=1e-10)


def test_gradients_equal_those_of_the_plain_form_the_learned_decay_of_the_neuron_included() -> None:
    _, net = wrapped("Leaky", learn_beta=True)
    stir_(net)
    x = spikes().requires_grad_()
    leaves = [x, net.fc.weight, net.fc.bias, net.fc.dk.heterogeneity.r, net.lif.beta]
    run = Currents(net.fc, net.lif.beta)
    plain = plain_subtract(torch.stack([run(z) for z in x]), net.lif.beta)
    weights = torch.randn(2, TIME, BATCH, POST, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    found, wanted = (
        torch.autograd.grad(sum((w * y).sum() for w, y in zip(weights, run, strict=True)), leaves)  # type: ignore[arg-type]
        for run in (net(x), plain)
    )
    for one, two in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-10, atol=1e-10)
    assert bool(wanted[-1].any())


def test_the_leak_is_read_as_it_is_now_and_a_copy_reads_its_own_neuron(tmp_path: Path) -> None:
    bare, net = wrapped("Leaky", learn_beta=True)
    stir_(net)
    twin = copy.deepcopy(net)
    with torch.no_grad():
        twin.lif.beta.fill_(0.5)
    assert float(twin.fc.dk.heterogeneity.leak().detach()) == 0.5
    assert float(net.fc.dk.heterogeneity.leak().detach()) == pytest.approx(BETA)
    before = net(spikes())
    dk.save(net, tmp_path / "extras")
    again = dk.load(copy.deepcopy(bare), tmp_path / "extras")
    assert all(map(torch.equal, again(spikes()), before))
    with torch.no_grad():
        again.lif.beta.fill_(0.25)
    assert float(again.fc.dk.heterogeneity.leak().detach()) == 0.25
    revived = pickle.loads(pickle.dumps(twin))
    with torch.no_grad():
        revived.lif.beta.fill_(0.125)
    assert float(revived.fc.dk.heterogeneity.leak().detach()) == 0.125
    alone = pickle.loads(pickle.dumps(twin.fc))
    assert float(alone.dk.heterogeneity.leak().detach()) == 0.5


def test_a_connection_that_no_neuron_hears_is_a_readout() -> None:
    class Readout(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(PRE, POST)

        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([self.fc(step) for step in x])

    net = Readout().double()
    bare = net(spikes())
    dk.wrap_(net, {"fc": HetSyn()}, example=spikes()[:3])
    assert torch.equal(net(spikes()), bare)
    net.fc.dk.heterogeneity.r.data.fill_(0.5)
    run = Currents(net.fc, torch.zeros(()))
    torch.testing.assert_close(net(spikes()), torch.stack([run(z) for z in spikes()]), rtol=0, atol=1e-12)


class Sequence(nn.Module):
    """The connection is called once for the whole sequence."""

    def __init__(self, neuron: nn.Module) -> None:
        super().__init__()
        self.fc, self.lif = nn.Linear(PRE, POST), neuron

    def forward(self, x: Tensor) -> Tensor:
        membrane, out = self.lif.reset_mem(), []
        for current in self.fc(x):
            _, membrane = self.lif(current, membrane)
            out.append(membrane)
        return torch.stack(out)


def test_a_whole_sequence_equals_the_steps() -> None:
    one = Sequence(neuron("Leaky")).double()
    two = Net(neuron("Leaky")).double()
    two.fc.load_state_dict(one.fc.state_dict())
    for net in (one, two):
        dk.wrap_(net, {"fc": HetSyn()}, example=spikes()[:5])
        stir_(net)
    torch.testing.assert_close(one(spikes()), two(spikes())[1], rtol=0, atol=1e-12)


def test_two_neurons_behind_one_connection_must_leak_alike() -> None:
    class Shared(nn.Module):
        def __init__(self, other: float) -> None:
            super().__init__()
            self.fc = nn.Linear(PRE, POST)
            self.one, self.two = snn.Leaky(beta=0.8), snn.Leaky(beta=other)

        def forward(self, x: Tensor) -> Tensor:
            m, n = self.one.reset_mem(), self.two.reset_mem()
            for step in x:
                current = self.fc(step)
                _, m = self.one(current, m)
                _, n = self.two(current, n)
            return m + n

    dk.wrap_(Shared(0.8), {"fc": HetSyn()}, example=spikes(torch.float32)[:3])
    with pytest.raises(dk.WrapError, match="whose leaks differ"):
        dk.wrap_(Shared(0.7), {"fc": HetSyn()}, example=spikes(torch.float32)[:3])


class Opaque(snn.Leaky):
    """A neuron of somebody's own."""


REFUSED: list[Callable[[], nn.Module]] = [
    lambda: snn.Alpha(alpha=0.8, beta=0.6),
    lambda: snn.Leaky(beta=0.8, state_quant=lambda x: x.round()),
    lambda: Opaque(beta=0.8),
]


@pytest.mark.parametrize("make", REFUSED, ids=["Alpha", "state_quant", "subclass"])
def test_a_neuron_whose_state_is_not_known_to_be_linear_is_refused_by_name(make: Callable[[], nn.Module]) -> None:
    net = Net(make())
    with pytest.raises(dk.WrapError, match="'lif' behind it") as caught:
        dk.wrap_(net, {"fc": HetSyn()}, example=spikes(torch.float32)[:3])
    assert type(net.lif).__name__ in str(caught.value) and "fc" in str(caught.value)
    assert "dk" not in net.fc._modules


def test_without_an_example_nobody_knows_the_neuron() -> None:
    with pytest.raises(dk.WrapError, match="which neuron it drives"):
        dk.wrap_(Net(neuron("Leaky")), {"fc": dk.At(HetSyn(), reset="manual")})


def test_time_constants_in_ms_need_the_length_of_a_step() -> None:
    with pytest.raises(dk.WrapError, match="dt_ms"):
        dk.wrap_(Net(neuron("Leaky")), {"fc": HetSyn(tau=20.0)}, example=spikes(torch.float32)[:3])


def test_neurons_that_leak_differently_need_a_decay_each_to_begin_at() -> None:
    beta = torch.linspace(0.5, 0.9, POST)
    for granularity in ("synaptic", "post"):
        net = Net(neuron("Leaky", beta=beta)).double()
        bare = net(spikes())
        dk.wrap_(net, {"fc": HetSyn(granularity)}, example=spikes()[:3])
        assert all(map(torch.equal, net(spikes()), bare))
    with pytest.raises(dk.WrapError, match="leak differently"):
        dk.wrap_(Net(neuron("Leaky", beta=beta)), {"fc": HetSyn("pre")}, example=spikes(torch.float32)[:3])
