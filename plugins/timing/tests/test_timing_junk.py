"""Junk for every argument of every public call: taken, or told in full."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

import delaykit_timing as timing
from delaykit.testing.junk import check_all_called, check_arguments
from delaykit_timing import Events, MultiSpikeLIF, PotentialReadout, TimingDynamics, TimingNet

APART = ("SpikeTimeReport", "SpikeTimes", "TimingOutput")  # what calls return, which nobody makes


def events(size=3):
    return Events.of([[0.1, 0.2], [0.3]], [[0, 1], [2]], size)


def loose():
    return {"when": torch.tensor([0.1, 0.2]), "sample": torch.tensor([0, 0]), "neuron": torch.tensor([0, 1]),
            "batch": 1, "size": 2}  # fmt: skip


def recording():
    return np.array([(1, 0, True)], dtype=[("t", int), ("x", int), ("p", bool)])


def sizes():
    return {"pre": 3, "post": 2}


def net():
    return TimingNet((3, 2))


def trained():
    model = MultiSpikeLIF(3, 2)
    return {"optimizer": torch.optim.SGD(model.parameters(), lr=0.1), "net": model}


def discrete():
    return dict(zip(("linear", "neuron"), timing.to_discrete(MultiSpikeLIF(3, 2), dt=0.1), strict=True))


OPTIONS = ("tau_synapse", "tau_membrane", "threshold", "end", "max_spikes", "delay", "dt", "weight_mean",
           "weight_std", "slope_floor", "generator")  # fmt: skip
CALLS = {
    "compare_spike_times": (
        lambda: {**discrete(), "layer": MultiSpikeLIF(3, 2), "raster": torch.zeros(4, 2, 3), "dt": 0.1},
    ),
    "to_discrete": (lambda: {"layer": MultiSpikeLIF(3, 2), "dt": 0.1}, "library"),
    "to_events": (lambda: {**discrete(), "dt": 0.1, "end": 1.0},),
    "TimingDynamics": (dict, *(field.name for field in dataclasses.fields(TimingDynamics))),
    "membrane_response": (lambda: {"elapsed": torch.rand(3), "dynamics": TimingDynamics()},),
    "first_spike_encode": (lambda: {"values": torch.rand(2, 3)}, "start", "span"),
    "latency_encode": (lambda: {"values": torch.rand(2, 3)}, "end"),
    "Events": (lambda: {"times": torch.rand(2, 3), "neurons": torch.zeros(2, 3).long(), "size": 2}, "potential"),
    "Events.of": (lambda: {"times": [[0.1]], "neurons": [[0]], "size": 2}, "dtype"),
    "Events.gather": (loose, "potential"),
    "Events.first_times": (dict, "silent"),
    "Events.of_neuron": (lambda: {"sample": 0, "neuron": 1},),
    "from_raster": (lambda: {"raster": torch.zeros(3, 2, 2), "dt": 0.1},),
    "from_tonic": (lambda: {"recordings": [recording()], "sensor_size": (2, 1, 2)}, "unit"),
    "to_raster": (lambda: {"events": events(), "dt": 0.1, "steps": 4}, "dtype"),
    "MultiSpikeLIF": (sizes, "single_spike", *OPTIONS),
    "MultiSpikeLIF.forward": (lambda: {"events": events()},),
    "PotentialReadout": (sizes, *OPTIONS),
    "first_spike_hinge": (lambda: {"first": torch.rand(2, 3), "labels": torch.tensor([0, 1])}, "sharpness", "margin"),
    "output_norm": (lambda: {"scores": torch.rand(2, 3)}, "strength"),
    "potential_cross_entropy": (lambda: {"scores": torch.rand(2, 3), "labels": torch.tensor([0, 1])},),
    "spike_count_penalty": (lambda: {"events": MultiSpikeLIF(3, 2)(events())}, "direction", "strength", "threshold"),
    "wanted_direction": (lambda: {"counts": torch.ones(2, 3)}, "low", "high", "alive"),
    "TimingNet": (lambda: {"sizes": (3, 2)}, "delay", "readout"),
    "TimingNet.forward": (lambda: {"events": events()},),
    "project_after_steps": (trained,),
    "spike_times": (
        lambda: {"times": torch.rand(2, 3), "neurons": torch.zeros(2, 3).long(), "weight": torch.rand(2, 3),
                 "dynamics": TimingDynamics()}, "delays",
    ),
    "membrane_trace": (
        lambda: {"layer": MultiSpikeLIF(3, 2), "events": events(), "sample": 0, "neuron": 1, "when": torch.rand(3)},
    ),
}  # fmt: skip
RUNS = {
    "MultiSpikeLIF": lambda **given: MultiSpikeLIF(**given)(events()),
    "PotentialReadout": lambda **given: PotentialReadout(**given)(events()),
    "TimingNet": lambda **given: TimingNet(**given)(events()),
    "TimingDynamics": lambda **given: timing.membrane_response(torch.rand(3), TimingDynamics(**given)),
}  # what is made has to run, too


def call_of(name):
    if "." in name:
        made = {"Events": events, "MultiSpikeLIF": lambda: MultiSpikeLIF(3, 2), "TimingNet": net}
        owner, _, method = name.partition(".")
        return getattr(made[owner](), method)
    return RUNS.get(name, getattr(timing, name))


@pytest.mark.slow
@pytest.mark.parametrize("name", CALLS)
def test_no_argument_of_a_call_raises_a_raw_error(name):
    pytest.importorskip("snntorch", reason="makes discrete neurons")
    assert check_arguments(call_of(name), *CALLS[name]) > 0


def test_all_public_calls_are_tried():
    check_all_called(timing, CALLS, *APART)
