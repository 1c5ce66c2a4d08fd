"""The reproduction's event-to-event neurons against the operators over whole sequences."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch

from delaykit.functional.exact import ExactLIF, exact_arrivals, exact_rollout, first_spike_times

STEPS = 80


def load(name: str) -> ModuleType:
    path = Path(__file__).parents[1] / "reproduce" / "common" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"delaykit_spatial_reproduce_{name}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def single() -> ModuleType:
    pytest.importorskip("numba")
    return load("single_spike")


def two_layers(dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    """Two weights and two delays of a net in which some of both layers fire, and some do not."""
    generator = torch.Generator().manual_seed(3)
    sizes = ((6, 4), (3, 6))
    weights = [
        torch.rand(size, generator=generator, dtype=dtype) * f for size, f in zip(sizes, (1.2, 0.5), strict=True)
    ]
    delays = [12.0 * torch.rand(size, generator=generator, dtype=dtype) for size in sizes]
    return [x.requires_grad_() for x in (*weights, *delays)]


def by_operators(slots: torch.Tensor, weights, delays, neuron: ExactLIF) -> torch.Tensor:
    spikes = torch.zeros(STEPS, *slots.shape, dtype=weights[0].dtype).scatter_(0, slots.long().unsqueeze(0), 1.0)
    clock = None
    for weight, delay in zip(weights, delays, strict=True):
        jumps = exact_arrivals(spikes, clock, weight, delay, neuron.tau_syn, neuron.dt)
        spikes, clock, _ = exact_rollout(*jumps, neuron, once=True)
    return first_spike_times(spikes, clock, silent=STEPS + 1)


def test_times_and_gradients_are_those_of_the_operators(single: ModuleType) -> None:
    neuron = ExactLIF(tau_mem=4.0, tau_syn=2.0, dt=0.1)
    slots = torch.randint(0, 41, (30, 4), generator=torch.Generator().manual_seed(1)).double()
    cotangent = torch.randn(30, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    found, gradients = [], []
    for events in (True, False):
        one, two, first, last = parameters = two_layers()
        if events:
            hidden = single.single_spikes(slots, one, first, neuron, STEPS)
            times = single.single_spikes(hidden, two, last, neuron, STEPS)
        else:
            times = by_operators(slots, (one, two), (first, last), neuron)
        gradients.append(torch.autograd.grad((times * cotangent).sum(), parameters))
        found.append(times.detach())
    silent = float((found[0] == STEPS + 1).double().mean())
    assert 0.02 < silent < 0.6, "some fire, some do not"
    assert torch.equal(*found)
    for events, sequences in zip(*gradients, strict=True):
        assert float(sequences.abs().max()) > 0
        torch.testing.assert_close(events, sequences, rtol=1e-11, atol=1e-13)


def test_one_delay_for_all_gets_the_sum_of_their_gradients(single: ModuleType) -> None:
    neuron, (weight, *_) = ExactLIF(tau_mem=4.0, tau_syn=2.0, dt=0.1), two_layers()
    slots = torch.tensor([[3.0, 5.0, 9.0, 20.0]], dtype=torch.float64)
    layer, synaptic = (torch.full(shape, 2.0, dtype=torch.float64, requires_grad=True) for shape in ((1, 1), (6, 4)))
    for delay in (layer, synaptic):
        single.single_spikes(slots, weight, delay, neuron, STEPS).sum().backward()
    assert float(layer.grad) == pytest.approx(float(synaptic.grad.sum())) and float(layer.grad) > 0


def test_at_whole_delays_the_surrogate_sees_the_same_spikes(single: ModuleType) -> None:
    neuron, (one, two, first, last) = ExactLIF(tau_mem=4.0, tau_syn=2.0, dt=0.1), two_layers()
    first, last = first.detach().round(), last.detach().round()
    slots = torch.randint(0, 41, (30, 4), generator=torch.Generator().manual_seed(1)).double()
    hidden = single.single_spikes(slots, one, first, neuron, STEPS)
    spikes = torch.zeros(STEPS, 30, 4, dtype=torch.float64).scatter_(0, slots.long().unsqueeze(0), 1.0)
    surrogate_spikes = load("surrogate_spike").surrogate_spikes
    emitted, times = surrogate_spikes(spikes, one, first, neuron, 10.0)
    assert torch.equal(times, hidden) and torch.equal(emitted.sum(0), (hidden < STEPS).double())
    _, times = surrogate_spikes(emitted, two, last, neuron, 10.0)
    assert torch.equal(times, single.single_spikes(hidden, two, last, neuron, STEPS))


def test_a_later_surrogate_spike_is_asked_for_by_a_lower_weight() -> None:
    neuron, weight = ExactLIF(tau_mem=4.0, tau_syn=2.0, dt=0.1), torch.tensor([[2.0]], requires_grad=True)
    spikes = torch.zeros(STEPS, 1, 1)
    spikes[3] = 1.0
    load("surrogate_spike").surrogate_spikes(spikes, weight, torch.zeros(1, 1), neuron, 10.0)[1].sum().backward()
    assert weight.grad is not None and float(weight.grad) < 0
