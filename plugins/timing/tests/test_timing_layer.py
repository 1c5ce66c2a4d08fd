"""Layers, networks, delays and losses."""

from __future__ import annotations

import copy
import math
import pickle

import pytest
import torch
from torch import Tensor

from delaykit import ConfigError, DelayRangeError, FreeDelay, PointDelay, ShapeError, Site, TrainingError
from delaykit.arrivals import Linear
from delaykit_timing import (
    Events,
    MultiSpikeLIF,
    PotentialReadout,
    TimingNet,
    first_spike_hinge,
    latency_encode,
    membrane_trace,
    output_norm,
    potential_cross_entropy,
    project_after_steps,
    spike_count_penalty,
    wanted_direction,
)

DT = 0.02
GRANULARITIES = ("layer", "axonal", "dendritic", "synaptic")


def layer_with(granularity: str | None, **options) -> MultiSpikeLIF:
    """Three neurons that fire, driven by four, float64."""
    g = torch.Generator().manual_seed(3)
    delay = None if granularity is None else FreeDelay(granularity, max_delay=20)
    dt = None if granularity is None else DT
    options = {"tau_synapse": 0.5, "weight_mean": 1.5, "weight_std": 1.5} | options
    return MultiSpikeLIF(4, 3, delay=delay, dt=dt, generator=g, **options).double()


def some_events(samples: int = 2, slots: int = 12) -> Events:
    g = torch.Generator().manual_seed(8)
    times = torch.rand(samples, slots, generator=g, dtype=torch.float64).sort(1).values * 0.8
    return Events(times, torch.randint(0, 4, (samples, slots), generator=g), 4)


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_a_delay_is_an_arrival_moved_by_hand(granularity: str) -> None:
    layer, events = layer_with(granularity), some_events()
    out = layer(events)
    assert float(layer.delays().detach().max()) > 2 * DT and int(out.counts.min()) >= 2
    delays = (DT * layer.delay.delays().detach()).expand(3, 4)
    for j in range(3):
        moved = events.times + delays[j][events.neurons]
        order = moved.argsort(1)
        alone = MultiSpikeLIF(4, 1, tau_synapse=0.5).double()
        alone.weight.data = layer.weight.data[j : j + 1]
        right = alone(Events(moved.gather(1, order), events.neurons.gather(1, order), 4))
        torch.testing.assert_close(out.potential[:, j], right.potential[:, 0], rtol=0, atol=1e-12)
        for b in range(2):
            torch.testing.assert_close(out.of_neuron(b, j), right.of_neuron(b, 0), rtol=0, atol=1e-12)


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_gradients_of_delays_equal_finite_differences(granularity: str) -> None:
    layer, events = layer_with(granularity), some_events()

    def loss() -> Tensor:
        out = layer(events)
        return torch.where(out.mask, out.times.square(), 0.0).sum() + out.potential.sum()

    loss().backward()
    parameter, exact = layer.delay.delay, layer.delay.delay.grad.clone()
    assert float(exact.abs().max()) > 1e-4
    with torch.no_grad():
        for k in range(parameter.numel()):
            values = []
            for shift in (-1e-4, 1e-4):
                parameter.view(-1)[k] += shift
                values.append(float(loss()))
                parameter.view(-1)[k] -= shift
            numeric = (values[1] - values[0]) / 2e-4
            assert abs(numeric - float(exact.view(-1)[k])) < 1e-7 * max(1.0, float(exact.abs().max()))


def test_zero_delays_change_nothing() -> None:
    bare, events = layer_with(None), some_events()
    for granularity in GRANULARITIES:
        delayed = MultiSpikeLIF(4, 3, tau_synapse=0.5, delay=FreeDelay(granularity, init=0.0), dt=DT).double()
        delayed.weight.data = bare.weight.data
        left, right = bare(events), delayed(events)
        assert torch.equal(left.times, right.times) and torch.equal(left.potential, right.potential)


def test_a_built_delay_and_a_hard_one() -> None:
    hard = FreeDelay("axonal", kernel="hard", learn=False, init=[0.6, 1.4, 2.0, 0.0])
    built = hard.build(Site("x", 4, 3))
    layer = MultiSpikeLIF(4, 3, delay=built, dt=0.5)
    assert layer.delays().tolist() == [[0.5, 0.5, 1.0, 0.0]]


def test_delays_without_an_exact_arrival_are_refused() -> None:
    wide = FreeDelay("axonal", kernel="triangle", spread=3.0)
    with pytest.raises(DelayRangeError, match="spread"):
        MultiSpikeLIF(4, 3, delay=wide, dt=DT)(some_events())
    with pytest.raises(ConfigError, match="dt"):
        MultiSpikeLIF(4, 3, delay=FreeDelay("axonal"))
    with pytest.raises(ConfigError, match="PointDelay"):
        MultiSpikeLIF(4, 3, delay=torch.nn.Linear(1, 1), dt=DT)
    layer = layer_with("axonal")
    layer.delay.delay.data[0] = -1.0
    with pytest.raises(DelayRangeError):
        layer(some_events())


def test_projection_follows_each_step_and_needs_all_delays() -> None:
    layer = layer_with("axonal")
    optimizer = torch.optim.SGD(layer.parameters(), lr=1e4)
    project_after_steps(optimizer, layer)
    layer(some_events()).potential.sum().backward()
    optimizer.step()
    assert 0 <= float(layer.delay.delay.detach().min()) <= float(layer.delay.delay.detach().max()) <= 20
    with pytest.raises(TrainingError, match="no group that holds delay.delay"):
        project_after_steps(torch.optim.SGD([layer.weight], lr=1.0), layer)


def test_single_spike_keeps_the_first_and_no_other() -> None:
    many, one, events = layer_with(None), layer_with(None, single_spike=True), some_events()
    assert int(many(events).spike_counts().max()) > 1
    assert int(one(events).spike_counts().max()) == 1
    assert torch.equal(many(events).first_times(), one(events).first_times())


def test_the_trace_passes_through_threshold_and_end() -> None:
    for granularity in (None, "synaptic"):
        layer, events = layer_with(granularity), some_events()
        out = layer(events)
        for j in range(3):
            _, spikes = membrane_trace(layer, events, 0, j, torch.zeros(1))
            assert torch.equal(spikes, out.of_neuron(0, j).detach())
            before, _ = membrane_trace(layer, events, 0, j, spikes - 1e-10)
            after, _ = membrane_trace(layer, events, 0, j, spikes)
            torch.testing.assert_close(before, torch.ones_like(spikes), rtol=0, atol=1e-7)
            torch.testing.assert_close(after, torch.zeros_like(spikes), rtol=0, atol=1e-10)
            end, _ = membrane_trace(layer, events, 0, j, torch.ones(1))
            torch.testing.assert_close(end[0], out.potential[0, j].detach(), rtol=0, atol=1e-10)


def test_a_readout_never_fires() -> None:
    readout = PotentialReadout(4, 2, tau_synapse=0.5, weight_mean=9.0).double()
    potential = readout(some_events())
    assert potential.shape == (2, 2) and float(potential.detach().max()) > 1
    with pytest.raises(ConfigError, match="does not fire"):
        PotentialReadout(4, 2, threshold=1.0)


def test_a_network_of_three_layers_has_exact_gradients() -> None:
    g = torch.Generator().manual_seed(1)
    net = TimingNet((4, 6, 5, 2), tau_synapse=0.5, weight_mean=0.8, weight_std=1.0, generator=g).double()
    events, labels = some_events(), torch.tensor([0, 1])
    out = net(events)
    assert all(int(hidden.counts.min()) > 1 for hidden in out.hidden)

    def loss() -> Tensor:
        out = net(events)
        penalties = [spike_count_penalty(hidden, torch.ones(hidden.size)) for hidden in out.hidden]
        return potential_cross_entropy(out.scores, labels) + output_norm(out.scores) + sum(penalties)

    loss().backward()
    for parameter in net.parameters():
        exact = parameter.grad.clone()
        for k in range(0, parameter.numel(), 5):
            values = []
            with torch.no_grad():
                for shift in (-2e-5, -1e-5, 1e-5, 2e-5):
                    parameter.view(-1)[k] += shift
                    values.append(float(loss()))
                    parameter.view(-1)[k] -= shift
            numeric = (values[0] - 8 * values[1] + 8 * values[2] - values[3]) / 12e-5
            assert abs(numeric - float(exact.view(-1)[k])) < 1e-7 * max(1.0, float(exact.abs().max()))


def test_training_lowers_the_loss() -> None:
    g = torch.Generator().manual_seed(0)
    values = torch.rand(40, 8, generator=g)
    labels = (values[:, :4].sum(1) > values[:, 4:].sum(1)).long()
    net = TimingNet(
        (8, 20, 2), tau_synapse=0.8, weight_mean=1.0, generator=g, delay=FreeDelay("axonal", high=5), dt=0.02
    )
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-2)
    project_after_steps(optimizer, net)
    losses = []
    for _ in range(60):
        loss = potential_cross_entropy(net(latency_encode(values)).scores, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_the_count_penalty_wakes_dead_neurons_and_calms_loud_ones() -> None:
    potential = torch.tensor([[0.2, 0.4, 0.6]], dtype=torch.float64, requires_grad=True)
    events = Events.of([[0.1, 0.2, 0.3]], [[1, 2, 2]], size=3)
    events = Events(events.times, events.neurons, 3, potential)
    spike_count_penalty(events, strength=1.0).backward()
    assert torch.allclose(potential.grad, torch.tensor([[-1.0, 0.0, 0.0]]).double() / 3)
    potential.grad = None
    spike_count_penalty(events, wanted_direction(events.spike_counts(), high=1.5), strength=1.0).backward()
    assert torch.allclose(potential.grad, torch.tensor([[-1.0, 0.0, 1.0]]).double() / 3)
    with pytest.raises(ShapeError, match="potentials"):
        spike_count_penalty(some_events())


def test_dead_is_firing_on_less_than_a_tenth_of_the_batch() -> None:
    counts = torch.zeros(20, 3)
    counts[0, 1], counts[:2, 2] = 5, 1
    assert wanted_direction(counts).tolist() == [1, 1, 0]


def test_the_hinge_rewards_being_first() -> None:
    first = torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.float64)
    by_hand = math.log1p(math.exp(10 * (1 - 2 + 0.2))) + math.log1p(math.exp(10 * (1 - 3 + 0.2)))
    assert first_spike_hinge(first, torch.tensor([0])).item() == pytest.approx(by_hand, rel=1e-12)
    assert first_spike_hinge(first, torch.tensor([2])) > first_spike_hinge(first, torch.tensor([0]))
    with pytest.raises(ShapeError, match="infinite"):
        first_spike_hinge(torch.tensor([[math.inf]]), torch.tensor([0]))


@pytest.mark.parametrize(
    "options", [{"tau_synapse": 0.0}, {"tau_membrane": -1.0}, {"threshold": 0.0}, {"end": math.inf}, {"max_spikes": 0}]
)
def test_constants_out_of_range_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        MultiSpikeLIF(2, 2, **options)


def test_a_layer_says_what_it_is_and_checks_its_input() -> None:
    assert "4 -> 3" in repr(layer_with("axonal")) and "axonal delays" in repr(layer_with("axonal"))
    with pytest.raises(ShapeError, match="5 neurons"):
        layer_with(None)(Events.of([[0.1]], [[0]], size=5))


class Positions(PointDelay):
    """A delay of another plugin's kind: as long as the way between two places."""

    granularity = "synaptic"

    def __init__(self) -> None:
        super().__init__()
        g = torch.Generator().manual_seed(4)
        self.pre = torch.nn.Parameter(3 * torch.randn(4, 2, generator=g, dtype=torch.float64))
        self.post = torch.nn.Parameter(3 * torch.randn(3, 2, generator=g, dtype=torch.float64))

    def delays(self) -> Tensor:
        return (self.post[:, None] - self.pre).square().sum(-1).add(0.01).sqrt()

    def kernel(self) -> Linear:
        return Linear()


def test_positions_get_the_exact_gradient_of_their_delays() -> None:
    g = torch.Generator().manual_seed(3)
    layer = MultiSpikeLIF(
        4, 3, tau_synapse=0.5, weight_mean=2.0, weight_std=1.0, delay=Positions(), dt=DT, generator=g
    ).double()
    events = some_events()

    def loss() -> Tensor:
        out = layer(events)
        return torch.where(out.mask, out.times.square(), 0.0).sum() + out.potential.sum()

    loss().backward()
    for place in (layer.delay.pre, layer.delay.post):
        assert float(place.grad.abs().max()) > 1e-3
        with torch.no_grad():
            for k in range(place.numel()):
                values = []
                for shift in (-1e-4, 1e-4):
                    place.view(-1)[k] += shift
                    values.append(float(loss()))
                    place.view(-1)[k] -= shift
                assert abs((values[1] - values[0]) / 2e-4 - float(place.grad.view(-1)[k])) < 1e-7


@pytest.mark.slow
def test_copies_pickles_and_compiled_layers_are_the_same_layer() -> None:
    layer, events = layer_with("synaptic"), some_events()
    right = layer(events)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), torch.compile(layer, backend="eager")):
        out = other(events)
        assert torch.equal(out.times, right.times) and torch.equal(out.potential, right.potential)


def test_an_empty_batch_makes_an_empty_batch() -> None:
    out = layer_with("synaptic")(Events.of([], [], size=4))
    assert len(out) == 0 and out.potential.shape == (0, 3)
    assert layer_with(None)(Events.of([], [], size=4)).spike_counts().shape == (0, 3)


def test_two_backward_passes_add_up() -> None:
    layer, events = layer_with("axonal"), some_events()
    loss = layer(events).potential.square().sum()
    loss.backward(retain_graph=True)
    once = layer.weight.grad.clone()
    loss.backward()
    assert torch.equal(layer.weight.grad, 2 * once)
