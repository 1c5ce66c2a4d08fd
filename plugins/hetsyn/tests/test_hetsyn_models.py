"""Four models are four configurations of one layer: each equals a plain implementation of its own equations."""

from __future__ import annotations

import copy
import dataclasses
import math
import pickle

import pytest
import torch
from torch import Tensor

from delaykit.errors import ConfigError, TrainingError
from delaykit_hetsyn import (
    MODELS,
    AdaptationCurrent,
    HetSynConnection,
    HetSynLIF,
    HetSynNet,
    MultiGaussian,
    Neurons,
    ResetCurrent,
    TriangularSurrogate,
    ZeroReset,
    attach,
    make_layer,
    param_groups,
    rate_penalty,
)

TIME, BATCH, PRE, POST = 60, 3, 7, 5
NEURONS = Neurons(
    dt_ms=1.0, tau=("normal", 12.0, 4.0), tau_reset=9.0, tau_adaptation=30.0, adaptation=0.2, gain=2.0,
    recurrent_gain=1.5, surrogate=TriangularSurrogate(1.0),
)  # fmt: skip


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def layer_of(model: str, recurrent: bool, neurons: Neurons = NEURONS) -> HetSynLIF:
    """Built in double precision, so that no decay was ever rounded to single."""
    torch.set_default_dtype(torch.float64)
    try:
        return make_layer(model, PRE, POST, recurrent, neurons, seeded())
    finally:
        torch.set_default_dtype(torch.float32)


def input_spikes() -> Tensor:
    return (torch.rand(TIME, BATCH, PRE, generator=seeded(1)) < 0.15).double().requires_grad_()


def leaky(z: Tensor, w: Tensor, u: Tensor, rho: Tensor) -> tuple[Tensor, Tensor]:
    """The leaky neuron of a textbook: one membrane, one decay, threshold 1 subtracted after a spike."""
    membrane = fired = z.new_zeros(BATCH, POST)
    out = []
    for t in range(TIME):
        membrane = rho * membrane + z[t] @ w.T + fired @ u.T - fired
        fired = TriangularSurrogate(1.0)(membrane - 1.0)
        out.append((fired, membrane))
    return tuple(torch.stack(x) for x in zip(*out, strict=True))  # type: ignore[return-value]


def own_reset(z: Tensor, w: Tensor, u: Tensor, rho: Tensor, adaptive: bool = False) -> tuple[Tensor, Tensor]:
    """Synapses of decay rho, a reset of 9 ms whatever rho is, perhaps a threshold that rises by .2 for 30 ms."""
    current = reset = raised = fired = z.new_zeros(BATCH, POST)
    out = []
    for t in range(TIME):
        current = rho * current + z[t] @ w.T + fired @ u.T
        reset = math.exp(-1.0 / 9.0) * reset + fired
        raised = math.exp(-1.0 / 30.0) * raised + (0.2 if adaptive else 0.0) * fired
        fired = TriangularSurrogate(1.0)(current - reset - (1.0 + raised))
        out.append((fired, current - reset - raised))
    return tuple(torch.stack(x) for x in zip(*out, strict=True))  # type: ignore[return-value]


def synaptic(z: Tensor, w: Tensor, u: Tensor, r: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
    """Sum every spike's current with the power of its synapse's decay; no recurrence in time at all."""
    kappa = math.exp(-1.0 / 9.0)
    spikes: list[Tensor] = []
    membranes = []
    for t in range(TIME):
        ages = torch.arange(t, -1, -1, dtype=z.dtype)
        membrane = torch.einsum("ji,sji,sbi->bj", w, r ** ages[:, None, None], z[: t + 1])
        if spikes:
            past = torch.stack(spikes)  # s[0 .. t - 1], the last of which arrives now
            membrane = membrane + torch.einsum("jk,sjk,sbk->bj", u, q ** ages[1:, None, None], past)
            membrane = membrane - torch.einsum("s,sbj->bj", kappa ** ages[1:], past)
        membranes.append(membrane)
        spikes.append(TriangularSurrogate(1.0)(membrane - 1.0))
    return torch.stack(spikes), torch.stack(membranes)


@pytest.mark.parametrize("recurrent", [False, True], ids=["F", "R"])
@pytest.mark.parametrize("model", MODELS)
def test_each_model_is_its_plain_implementation(model: str, recurrent: bool) -> None:
    layer, z = layer_of(model, recurrent), input_spikes()
    w, decay = layer.input.weight, layer.input.decay
    u = layer.recurrent.weight if layer.recurrent is not None else torch.zeros(POST, POST, dtype=torch.float64)
    q = layer.recurrent.decay if layer.recurrent is not None else torch.zeros_like(u)
    if model == "HetSynLIF":
        wanted = synaptic(z, w, u, decay, q)
    else:
        wanted = own_reset(z, w, u, decay.flatten(), adaptive=model == "HomNeuALIF")
    found = layer(z)
    assert 0.02 < float(wanted[0].detach().mean()) < 0.4
    assert torch.equal(found[0], wanted[0])
    assert float((found[1] - wanted[1]).detach().abs().max()) < 1e-10
    given = [t for t in dict.fromkeys((z, w, decay, u, q)) if t.requires_grad]
    assert len(given) == {"HomNeuLIF": 2, "HomNeuALIF": 2, "HetNeuLIF": 3, "HetSynLIF": 3}[model] + (
        {"HetSynLIF": 2}.get(model, 1) if recurrent else 0
    )
    cotangents = [torch.randn(TIME, BATCH, POST, generator=seeded(2), dtype=torch.float64) for _ in range(2)]
    for a, b in zip(*(torch.autograd.grad(x, given, cotangents) for x in (found, wanted)), strict=True):
        assert float((a - b).abs().max()) <= 1e-12 * max(1.0, float(b.abs().max()))


@pytest.mark.parametrize("reset", ["currents", "zero", "none"])
@pytest.mark.parametrize("granularity", ["synaptic", "post", "pre", "layer"])
@pytest.mark.parametrize("recurrent", [False, True])
def test_steps_equal_the_sequence_with_all_gradients(recurrent: bool, granularity: str, reset: str) -> None:
    currents = {
        "currents": [ResetCurrent(0.8, 1.0, learn=True), AdaptationCurrent(0.95, 0.1)],
        "zero": [ZeroReset(0.7, learn=True)],
        "none": [],
    }[reset]
    layer = HetSynLIF(
        PRE, POST, granularity=granularity, recurrent=recurrent, reset=currents, surrogate=MultiGaussian(), gain=2.0,
        tau=("uniform", 2.0, 20.0), detach_reset=reset == "currents", generator=seeded(),
    ).double()  # fmt: skip
    z = input_spikes()
    state, out = layer.start(BATCH), []
    for t in range(TIME):
        fired, state = layer.step(z[t], state)
        out.append((fired, state.membrane))
    wanted = tuple(torch.stack(x) for x in zip(*out, strict=True))
    found = layer(z)
    assert torch.equal(found[0], wanted[0]) and float(wanted[0].detach().mean()) > 0.02
    torch.testing.assert_close(found[1], wanted[1], rtol=0, atol=1e-10)
    given = [z, *layer.parameters()]
    sums = [x[0].sum() + x[1].pow(2).sum() for x in (found, wanted)]
    for a, b in zip(*(torch.autograd.grad(x, given) for x in sums), strict=True):
        assert float((a - b).abs().max()) <= 1e-12 * max(1.0, float(b.abs().max()))


def test_a_graded_input_is_a_current() -> None:
    layer = HetSynLIF(1, 1, tau=10.0, reset=[], gain=1.0, generator=seeded()).double()
    z = torch.zeros(4, 1, 1, dtype=torch.float64)
    z[1] = 0.5
    wanted = [0.0, *(0.5 * float(layer.input.weight.detach()) * math.exp(-k / 10.0) for k in range(3))]
    torch.testing.assert_close(layer(z)[1].flatten().tolist(), wanted, rtol=1e-6, atol=0)


def test_homogeneous_models_have_the_mean_time_constant_and_learn_none() -> None:
    neurons = Neurons(dt_ms=5.0, tau=("uniform", 5.0, 20.0))
    for model in ("HomNeuLIF", "HomNeuALIF"):
        net = HetSynNet(model, (PRE, POST, 2), True, neurons, generator=seeded())
        assert sorted(name for name, p in net.named_parameters() if p.requires_grad) == [
            "layers.0.input.weight", "layers.0.recurrent.weight", "readout.weight",
        ]  # fmt: skip
        for connection in (net.layers[0].input, net.layers[0].recurrent, net.readout):
            torch.testing.assert_close(connection.tau_ms(), torch.full((1, 1), 12.5))


@pytest.mark.parametrize("recurrent", [False, True], ids=["F", "R"])
@pytest.mark.parametrize("model", ["HomNeuLIF", "HetNeuLIF"])
def test_with_a_reset_that_follows_its_synapses_a_neuron_is_the_textbooks(model: str, recurrent: bool) -> None:
    layer = layer_of(model, recurrent, dataclasses.replace(NEURONS, tau_reset=None))
    z, w = input_spikes(), layer.input.weight
    u = layer.recurrent.weight if layer.recurrent is not None else torch.zeros(POST, POST, dtype=torch.float64)
    wanted, found = leaky(z, w, u, layer.input.decay.flatten()), layer(z)
    assert torch.equal(found[0], wanted[0]) and float(wanted[0].detach().mean()) > 0.02
    torch.testing.assert_close(found[1], wanted[1], rtol=0, atol=1e-10)


def test_homogeneous_models_can_have_a_time_constant_of_their_own() -> None:
    neurons = Neurons(tau=("uniform", 5.0, 20.0), tau_homogeneous=20.0)
    for model in ("HomNeuLIF", "HomNeuALIF"):
        tau = make_layer(model, PRE, POST, False, neurons).input.tau_ms()
        torch.testing.assert_close(tau, torch.full((1, 1), 20.0))
    assert float(make_layer("HetNeuLIF", PRE, 500, False, neurons, seeded()).input.tau_ms().mean()) < 13.0


@pytest.mark.parametrize("model", MODELS)
def test_the_reset_has_one_fixed_time_constant_in_all_models(model: str) -> None:
    layer = make_layer(model, PRE, POST, True, NEURONS, seeded())
    kappa = layer.jumps(layer.input.weight).decay
    torch.testing.assert_close(kappa[0], torch.full((POST,), math.exp(-1.0 / 9.0)))
    with torch.no_grad():
        layer.input.decay.fill_(0.5)  # as if learned
    assert torch.equal(layer.jumps(layer.input.weight).decay, kappa) and not kappa.requires_grad


def test_a_heterogeneous_neuron_has_one_decay_for_all_its_synapses() -> None:
    layer = make_layer("HetNeuLIF", PRE, POST, True, NEURONS, seeded())
    assert layer.recurrent is not None and layer.recurrent.decay is layer.input.decay
    assert copy.deepcopy(layer).recurrent.decay.shape == (POST, 1)
    clone = copy.deepcopy(layer)
    assert clone.recurrent.decay is clone.input.decay


def test_a_reset_that_follows_the_synapses_needs_one_decay_a_neuron() -> None:
    with pytest.raises(ConfigError, match="one decay a layer or a postsynaptic neuron"):
        HetSynLIF(3, 2, granularity="synaptic", reset=[ResetCurrent()])
    with pytest.raises(ConfigError, match="one decay a layer or a postsynaptic neuron"):
        make_layer("HetSynLIF", 3, 2, False, Neurons(tau_reset=None))
    with pytest.raises(ConfigError, match="share"):
        HetSynLIF(3, 2, granularity="synaptic", recurrent=True, share_decay=True)


def test_frozen_decays_stay_through_weight_decay_and_get_no_gradient() -> None:
    neurons = Neurons(tau=("normal", 20.0, 5.0), frozen=0.8, gain=3.0)
    net = HetSynNet("HetSynLIF", (PRE, 10, 2), True, neurons, generator=seeded())
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, weight_decay=0.1)
    attach(optimizer, net)
    connections = [net.layers[0].input, net.layers[0].recurrent, net.readout]
    before = [c.decay.detach().clone() for c in connections]
    net(input_spikes().detach().float()).readout.sum().backward()
    for c in connections:
        assert float(c.frozen.double().mean()) == pytest.approx(0.8, abs=0.02)
        assert float(c.decay.grad[c.frozen].abs().max()) == 0.0
        assert bool((c.decay.grad[~c.frozen] != 0).any())
    optimizer.step()
    for c, was in zip(connections, before, strict=True):
        assert torch.equal(c.decay[c.frozen], was[c.frozen])
        assert not torch.equal(c.decay[~c.frozen], was[~c.frozen])
    copied = HetSynNet("HetSynLIF", (PRE, 10, 2), True, neurons, generator=seeded(9))
    copied.load_state_dict(net.state_dict())
    assert torch.equal(copied.layers[0].input.frozen, net.layers[0].input.frozen)


def test_decays_are_projected_after_the_step_and_a_forgotten_one_is_an_error() -> None:
    net = HetSynNet("HetSynLIF", (PRE, POST, 2), generator=seeded())
    with pytest.raises(TrainingError, match=r"layers\.0\.input\.heterogeneity\.r"):
        attach(torch.optim.SGD([p for n, p in net.named_parameters() if "heterogeneity" not in n], lr=0.1), net)
    weights, decays = param_groups(net, 1e-3, 2e-3)
    assert len(weights["params"]) == 2 and len(decays["params"]) == 2 and decays["lr"] == 2e-3
    optimizer = torch.optim.SGD([weights, decays])
    handle = attach(optimizer, net)
    net.layers[0].input.decay.grad = torch.full((POST, PRE), 1e6)
    net.readout.decay.grad = torch.full((2, POST), -1e6)
    optimizer.step()
    assert float(net.layers[0].input.decay.detach().max()) == 0.0
    assert float(net.readout.decay.detach().min()) == 1.0
    handle.remove()
    optimizer.step()
    assert float(net.layers[0].input.decay.detach().max()) < 0.0


def test_state_is_saved_loaded_copied_and_pickled() -> None:
    for model in MODELS:
        net = HetSynNet(model, (PRE, POST, 4, 2), True, NEURONS, dropout=0.2, generator=seeded()).eval()
        z = input_spikes().detach().float()
        other = HetSynNet(model, (PRE, POST, 4, 2), True, NEURONS, generator=seeded(5)).eval()
        assert not torch.equal(other(z).readout, net(z).readout)
        other.load_state_dict(net.state_dict())
        for same in (other, copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
            assert torch.equal(same(z).readout, net(z).readout)


def test_dropout_drops_on_the_way_to_the_next_layer_only_in_training() -> None:
    net = HetSynNet("HetSynLIF", (PRE, 20, 2), True, NEURONS, dropout=0.5, generator=seeded())
    z = input_spikes().detach().float()
    torch.manual_seed(0)
    one, two = net(z), net(z)
    assert torch.equal(one.spikes[0], two.spikes[0]) and not torch.equal(one.readout, two.readout)
    assert torch.equal(net.eval()(z).readout, net(z).readout)


def test_the_rate_penalty_is_zero_at_the_target_and_counts_silence_as_one() -> None:
    spikes = torch.zeros(200, 2, 2)
    spikes[::100, :, 0] = 1.0  # 10 Hz at 1 ms
    assert float(rate_penalty(spikes[..., :1], 1.0)) == pytest.approx(0.0, abs=1e-6)
    assert float(rate_penalty(spikes, 1.0)) == pytest.approx(0.5)
    assert float(rate_penalty(spikes[..., :1], 0.5)) == pytest.approx(1.0)


def test_a_layer_says_what_it_is() -> None:
    text = str(HetSynNet("HetSynLIF", (PRE, POST, 2), True, Neurons(frozen=0.5), generator=seeded()))
    for said in ("7 -> 5, tau", "synaptic decays", "learned, 51% frozen", "threshold=1"):
        assert said in text
    text = str(HetSynNet("HomNeuLIF", (PRE, POST, 2), generator=seeded()))
    assert "tau 20.0..20.0 ms" in text and "layer decays 0.95..0.95, mean 0.95, fixed" in text


def test_unknown_models_granularities_and_shares_are_errors() -> None:
    for wrong in (
        lambda: HetSynNet("LIF", (2, 2, 2)),
        lambda: HetSynNet("HetSynLIF", (2, 2)),
        lambda: HetSynConnection(2, 2, "neuron"),
        lambda: HetSynConnection(2, 2, frozen=1.5),
        lambda: HetSynConnection(2, 2, dt_ms=0.0),
        lambda: HetSynLIF(2, 2, threshold=0.0),
        lambda: HetSynLIF(2, 2, reset="zero"),  # type: ignore[arg-type]
        lambda: HetSynLIF(2, 2, reset=[0.9]),  # type: ignore[list-item]
        lambda: HetSynLIF(2, -2),
    ):
        with pytest.raises(ConfigError):
            wrong()


def test_a_compiled_network_runs_as_the_eager_one() -> None:
    net = HetSynNet("HetSynLIF", (PRE, POST, 2), True, NEURONS, generator=seeded()).eval()
    z = input_spikes().detach().float()
    compiled = torch.compile(net, backend="eager")
    torch.testing.assert_close(compiled(z).readout, net(z).readout)


@pytest.mark.slow
def test_a_feed_forward_network_bridges_a_gap_that_its_neurons_forget() -> None:
    tasks = pytest.importorskip("delaykit_lab.tasks.match_to_sample", reason="needs the plugin delaykit-lab")
    task, generator, right = tasks.MatchToSample(delay_ms=800.0), seeded(), {}
    neurons = Neurons(dt_ms=5.0, tau=("normal", 40.0, 4.0), tau_reset=40.0, gain=3.0)
    for model in ("HomNeuLIF", "HetSynLIF"):
        net = HetSynNet(model, (30, 20, 2), False, neurons, generator=seeded())
        optimizer = torch.optim.Adam(param_groups(net, 2e-2))
        attach(optimizer, net)
        for _ in range(80):
            spikes, labels, _ = task.trials(32, generator)
            answer = net(spikes)
            loss = torch.nn.functional.cross_entropy(answer.readout[-1], labels)
            optimizer.zero_grad()
            (loss + 0.01 * rate_penalty(answer.spikes[0], 5.0)).backward()
            optimizer.step()
        spikes, labels, _ = task.trials(300, seeded(7))
        right[model] = float((net(spikes).readout[-1].argmax(1) == labels).float().mean())
    assert right["HetSynLIF"] > 0.95 and right["HomNeuLIF"] < 0.65


@pytest.mark.parametrize("model", MODELS)
def test_files_of_layers_with_a_tensor_called_decay_load(model: str) -> None:
    neurons = Neurons(frozen=0.5)
    net, other = (HetSynNet(model, (PRE, POST, 2), True, neurons, generator=seeded(k)) for k in (1, 2))
    former = {"r": "decay", "frozen": "frozen", "held": "drawn"}
    old = {}
    for key, values in net.state_dict().items():
        holder, _, name = key.partition(".heterogeneity.")
        old[f"{holder}.{former[name]}" if name else key] = values
    assert any(key.endswith("readout.decay") for key in old) and not any("heterogeneity" in key for key in old)
    other.load_state_dict(old)
    for key, values in other.state_dict().items():
        assert torch.equal(values, net.state_dict()[key])
