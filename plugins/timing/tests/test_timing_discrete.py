"""Discrete layers of snnTorch and Norse against the event layer of the same dynamics."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from delaykit import ConfigError, ShapeError
from delaykit_timing import MultiSpikeLIF, compare_spike_times, from_raster, membrane_trace, to_discrete, to_events

snntorch = pytest.importorskip("snntorch", reason="needs snnTorch, the extra `snntorch`")
norse = pytest.importorskip("norse.torch", reason="needs Norse, the extra `norse`")
STEPS = 60


def discrete(library: str, threshold: float = 1.0) -> tuple[nn.Linear, nn.Module]:
    torch.manual_seed(2)
    linear = nn.Linear(5, 4, bias=False, dtype=torch.float64)
    nn.init.normal_(linear.weight, 0.15, 0.3)
    if library == "snntorch":
        return linear, snntorch.Synaptic(
            alpha=0.9, beta=0.8, threshold=threshold, reset_mechanism="zero", reset_delay=False
        )
    linear.weight.data *= 4
    return linear, norse.LIFCell(norse.LIFParameters(v_th=torch.tensor(threshold)))


def raster(seed: int = 0) -> torch.Tensor:
    return (torch.rand(STEPS, 3, 5, generator=torch.Generator().manual_seed(seed)) < 0.15).double()


@pytest.mark.parametrize("library", ["snntorch", "norse"])
def test_below_threshold_the_discrete_membrane_lies_on_the_exact_one(library: str) -> None:
    linear, neuron = discrete(library, threshold=1e6)
    layer = to_events(linear, neuron, dt=0.5, end=STEPS * 0.5)
    spikes, state, syn, mem = raster(), None, torch.zeros(3, 4).double(), torch.zeros(3, 4).double()
    potentials = []
    for current in linear(spikes).detach():
        if library == "snntorch":
            _, syn, mem = neuron(current, syn, mem)
            potentials.append(mem)
        else:
            _, state = neuron(current, state)
            potentials.append(state.v)
    right = torch.stack(potentials)
    when = (torch.arange(STEPS) + 1) * 0.5
    for j in range(4):
        trace, _ = membrane_trace(layer, from_raster(spikes, 0.5), 1, j, when)
        torch.testing.assert_close(trace, right[:, 1, j].double(), rtol=0, atol=2e-6 if library == "norse" else 1e-7)


@pytest.mark.parametrize("library", ["snntorch", "norse"])
def test_first_spikes_fall_in_the_same_step(library: str) -> None:
    linear, neuron = discrete(library)
    layer = to_events(linear, neuron, dt=0.5, end=STEPS * 0.5)
    report = compare_spike_times(linear, neuron, layer, raster(), dt=0.5)
    assert report.discrete > 20 and report.exact > 20
    assert report.first == 0
    assert "spikes" in str(report)


@pytest.mark.parametrize("library", ["snntorch", "norse"])
def test_there_and_back_is_the_same_layer(library: str) -> None:
    torch.manual_seed(0)
    layer = MultiSpikeLIF(5, 4, tau_synapse=9.0, tau_membrane=6.0, threshold=1.5, end=30.0).double()
    linear, neuron = to_discrete(layer, dt=0.1, library=library)
    again = to_events(linear, neuron, dt=0.1, end=30.0)
    torch.testing.assert_close(again.weight, layer.weight, rtol=1e-9, atol=0)
    assert again.dynamics.tau_synapse == pytest.approx(9.0, rel=1e-9)
    assert again.dynamics.tau_v == pytest.approx(6.0, rel=1e-9) and again.dynamics.threshold == 1.5


@pytest.mark.parametrize("library", ["snntorch", pytest.param("norse", marks=pytest.mark.slow)])
def test_smaller_steps_come_closer_to_the_exact_times(library: str) -> None:
    torch.manual_seed(0)
    layer = MultiSpikeLIF(5, 4, tau_synapse=8.0, weight_mean=0.02, weight_std=0.01, end=30.0).double()
    coarse = (torch.rand(30, 3, 5, generator=torch.Generator().manual_seed(0)) < 0.3).double()
    means = []
    for fine in (1, 10, 100):
        spikes = torch.zeros(30 * fine, 3, 5, dtype=torch.float64)
        spikes[::fine] = coarse
        report = compare_spike_times(*to_discrete(layer, dt=1.0 / fine, library=library), layer, spikes, dt=1.0 / fine)
        assert report.exact > 15
        means.append(abs(report.mean))
    assert means[1] < 0.3 * means[0] and means[2] < 0.3 * means[1]


def test_other_dynamics_are_refused_by_name() -> None:
    linear, good = discrete("snntorch")
    cases = [
        (linear, snntorch.Leaky(beta=0.9), "Leaky"),
        (linear, snntorch.Synaptic(alpha=0.9, beta=0.8), "subtract"),
        (linear, snntorch.Synaptic(alpha=torch.rand(4), beta=0.8, reset_mechanism="zero"), "alpha"),
        (linear, snntorch.Synaptic(alpha=1.0, beta=0.8, reset_mechanism="zero"), "between 0 and 1"),
        (nn.Linear(5, 4), good, "bias"),
        (linear, norse.LIFCell(norse.LIFParameters(v_leak=torch.tensor(0.2))), "v_leak"),
    ]
    for connection, neuron, word in cases:
        with pytest.raises(ConfigError, match=word):
            to_events(connection, neuron, dt=1.0, end=10.0)
    with pytest.raises(ConfigError, match="limit"):
        to_discrete(MultiSpikeLIF(2, 2, single_spike=True), dt=0.1)
    with pytest.raises(ConfigError, match="library"):
        to_discrete(MultiSpikeLIF(2, 2), dt=0.1, library="brian")
    with pytest.raises(ShapeError, match="window"):
        compare_spike_times(linear, good, to_events(linear, good, dt=1.0, end=10.0), raster(), dt=1.0)
