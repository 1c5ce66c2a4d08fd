"""Wrong calls of the timing plugin: told in full, none raw, none silent."""

from __future__ import annotations

import pytest
import torch

import delaykit as dk
from delaykit.testing.faults.second_derivatives import check_second_derivatives
from delaykit.testing.messages import check_told
from delaykit_timing import (
    Events,
    MultiSpikeLIF,
    PotentialReadout,
    TimingDynamics,
    first_spike_encode,
    from_raster,
    from_tonic,
    latency_encode,
    spike_times,
    to_discrete,
    to_raster,
)

NAN = float("nan")
FIELDS = {
    "tau_synapse": ("1", 0.0, -1.0, NAN, None),
    "tau_membrane": ("1", 0.0, NAN),
    "threshold": (0.0, NAN, "1"),
    "end": (0.0, -1.0, float("inf"), None),
    "max_spikes": (0, 1.5, "2"),
    "slope_floor": (0.0, NAN),
}
CALLS = {
    f"TimingDynamics {k}={v!r}": lambda k=k, v=v: TimingDynamics(**{k: v})
    for k, values in FIELDS.items()
    for v in values
}
TIMES, NEURONS = torch.tensor([[0.1, 0.2]]), torch.tensor([[0, 1]])
WEIGHT = torch.tensor([[4.0, 4.0]])


def finds(times=TIMES, neurons=NEURONS, weight=WEIGHT, delays=None):
    return lambda: spike_times(times, neurons, weight, TimingDynamics(0.8), delays)


CALLS |= {
    "spike_times lists": finds(times=[[0.1]]),
    "spike_times integers": finds(times=TIMES.long()),
    "spike_times meta": finds(times=TIMES.to("meta")),
    "spike_times neurons float": finds(neurons=NEURONS.float()),
    "spike_times neurons list": finds(neurons=[[0, 1]]),
    "spike_times neuron outside": finds(neurons=NEURONS + 1),
    "spike_times weight": finds(weight=WEIGHT[0]),
    "spike_times delays": finds(delays=torch.rand(3)),
    "from_raster": lambda: from_raster(torch.rand(3), 1.0),
    "from_raster dt": lambda: from_raster(torch.ones(3, 1, 2), 0.0),
    "from_raster halves": lambda: from_raster(torch.full((3, 1, 2), 0.5), 1.0),
    "to_raster dt": lambda: to_raster(from_raster(torch.ones(3, 1, 2), 1.0), -1.0, 3),
    "from_tonic": lambda: from_tonic([torch.ones(3)], (2, 1, 1)),
    "latency_encode end": lambda: latency_encode(torch.rand(1, 2), 0.0),
    "first_spike_encode start": lambda: first_spike_encode(torch.rand(1, 2), -1.0),
    "Events nan": lambda: Events.of([[NAN]], [[0]], 2),
    "Events lengths": lambda: Events.of([[0.1, 0.2]], [[0]], 2),
    "layer of other events": lambda: MultiSpikeLIF(3, 2)(Events.of([[0.1]], [[0]], 2)),
    "layer delay without dt": lambda: MultiSpikeLIF(2, 2, delay=dk.FreeDelay("axonal", max_delay=3)),
    "layer end": lambda: MultiSpikeLIF(2, 2, end=0.0),
    "readout end": lambda: PotentialReadout(2, 2, end=-1.0),
    "to_discrete library": lambda: to_discrete(MultiSpikeLIF(2, 2), dt=0.1, library="nengo"),
    "to_discrete dt": lambda: to_discrete(MultiSpikeLIF(2, 2), dt=0.0),
}


@pytest.mark.parametrize("case", CALLS)
def test_a_wrong_call_is_told_in_full(case):
    check_told(CALLS[case])


@pytest.mark.parametrize("granularity", ["layer", "axonal", "synaptic"])
def test_a_learned_spread_is_told_in_full(granularity):
    wide = dk.FreeDelay(granularity, max_delay=3, kernel="triangle", spread=1.5)
    layer = MultiSpikeLIF(2, 2, delay=wide, dt=0.1)
    error = check_told(lambda: layer(Events.of([[0.1]], [[0]], 2)))
    assert "1.5 steps" in error.found


def test_second_derivatives_are_told_in_full():
    weight = WEIGHT.clone().requires_grad_()
    out = spike_times(TIMES, NEURONS, weight, TimingDynamics(0.8))
    first = torch.autograd.grad(out.when.sum(), weight, create_graph=True)[0]
    check_told(lambda: first.sum().backward())


def test_second_derivatives_are_refused_on_every_way():
    times, weight, delays = (
        TIMES.double().requires_grad_(),
        WEIGHT.double().requires_grad_(),
        torch.tensor([[0.1, 0.2]]),
    )
    delays = delays.double().requires_grad_()
    run = lambda: spike_times(times, NEURONS, weight, TimingDynamics(0.8), delays).when  # noqa: E731
    check_second_derivatives(run, [times, weight, delays])
