"""The reproduction's event-to-event neurons against the operators over whole sequences."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch

from delaykit_spatial.exact import ExactLIF, exact_arrivals, exact_rollout, first_spike_times

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
    pytest.importorskip("numba", reason="needs Numba, the extra `fast`")
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


def by_operators(slots: torch.Tensor, weights, delays, neuron: ExactLIF, steps: int) -> torch.Tensor:
    spikes = torch.zeros(steps, *slots.shape, dtype=weights[0].dtype).scatter_(0, slots.long().unsqueeze(0), 1.0)
    clock = None
    for weight, delay in zip(weights, delays, strict=True):
        jumps = exact_arrivals(spikes, clock, weight, delay, neuron.tau_syn, neuron.dt)
        spikes, clock, _ = exact_rollout(*jumps, neuron, once=True)
    return first_spike_times(spikes, clock, silent=steps + 1)


@pytest.mark.parametrize(("fine", "off"), [(1, 0.05), (4, 0.003)])
def test_times_and_gradients_are_those_of_the_operators(single: ModuleType, fine: int, off: float) -> None:
    """Times in steps of 0.1 ms to second order in the step, gradients to first: arrivals of one step have no order."""
    neuron, steps = ExactLIF(tau_mem=4.0, tau_syn=2.0, dt=0.1 / fine), STEPS * fine
    slots = fine * torch.randint(0, 41, (30, 4), generator=torch.Generator().manual_seed(1)).double()
    cotangent = torch.randn(30, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    found, gradients = [], []
    for events in (True, False):
        one, two, first, last = parameters = two_layers()
        if events:
            hidden = single.single_spikes(slots, one, first * fine, neuron, steps)
            times = single.single_spikes(hidden, two, last * fine, neuron, steps)
        else:
            times = by_operators(slots, (one, two), (first * fine, last * fine), neuron, steps)
        heard = times <= steps
        gradients.append(torch.autograd.grad((times[heard] * cotangent[heard]).sum() / fine, parameters))
        found.append(torch.where(heard, times.detach() / fine, -1.0))
    silent = float((found[0] == -1).double().mean())
    assert 0.02 < silent < 0.6, "some fire, some do not"
    torch.testing.assert_close(*found, rtol=0, atol=off)
    for events, sequences in zip(*gradients, strict=True):
        largest = float(sequences.abs().max())
        assert largest > 0
        torch.testing.assert_close(events, sequences, rtol=0, atol=0.1 / fine * largest)


def test_one_delay_for_all_gets_the_sum_of_their_gradients(single: ModuleType) -> None:
    neuron, (weight, *_) = ExactLIF(tau_mem=4.0, tau_syn=2.0, dt=0.1), two_layers()
    slots = torch.tensor([[3.0, 5.0, 9.0, 20.0]], dtype=torch.float64)
    layer, synaptic = (torch.full(shape, 2.0, dtype=torch.float64, requires_grad=True) for shape in ((1, 1), (6, 4)))
    for delay in (layer, synaptic):
        single.single_spikes(slots, weight, delay, neuron, STEPS).sum().backward()
    assert float(layer.grad) == pytest.approx(float(synaptic.grad.sum())) and float(layer.grad) > 0


def test_at_whole_delays_the_surrogate_sees_the_steps_after_the_spikes(single: ModuleType) -> None:
    neuron, (one, two, first, last) = ExactLIF(tau_mem=4.0, tau_syn=2.0, dt=0.1), two_layers()
    slots = torch.randint(0, 41, (30, 4), generator=torch.Generator().manual_seed(1)).double()
    surrogate_spikes, emitted, before = load("surrogate_spike").surrogate_spikes, None, slots
    spikes = torch.zeros(STEPS, 30, 4, dtype=torch.float64).scatter_(0, slots.long().unsqueeze(0), 1.0)
    for weight, delay in ((one, first.detach().round()), (two, last.detach().round())):
        emitted, times = surrogate_spikes(spikes if emitted is None else emitted, weight, delay, neuron, 10.0)
        events = single.single_spikes(before, weight, delay, neuron, STEPS).ceil()
        assert torch.equal(times, torch.where(events < STEPS, events, STEPS + 1.0))
        assert torch.equal(emitted.sum(0), (times < STEPS).double()) and bool(emitted.any())
        before = times.detach()


def test_a_later_surrogate_spike_is_asked_for_by_a_lower_weight() -> None:
    neuron, weight = ExactLIF(tau_mem=4.0, tau_syn=2.0, dt=0.1), torch.tensor([[2.0]], requires_grad=True)
    spikes = torch.zeros(STEPS, 1, 1)
    spikes[3] = 1.0
    load("surrogate_spike").surrogate_spikes(spikes, weight, torch.zeros(1, 1), neuron, 10.0)[1].sum().backward()
    assert weight.grad is not None and float(weight.grad) < 0
