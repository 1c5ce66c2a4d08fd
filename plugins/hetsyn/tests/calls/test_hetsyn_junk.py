"""Junk for every argument of every public call: taken, or told in full."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

import delaykit_hetsyn as hetsyn
from delaykit.testing.junk import check_all_called, check_arguments, check_fields
from delaykit_hetsyn import HetSyn, HetSynConnection, HetSynLIF, HetSynNet, Neurons, ResetCurrent, TriangularSurrogate

X = torch.ones(4, 2, 3)
APART = ("Answer", "Jumps", "SelfCurrent", "Surrogate", "ZeroReset")  # results, two interfaces, one without arguments


def sizes():
    return {"pre": 3, "post": 2}


def net():
    return nn.Sequential(HetSynLIF(3, 2))


def trained():
    model = net()
    return {"optimizer": torch.optim.SGD(model.parameters(), lr=0.1), "net": model}


def drive():
    jumps = HetSynLIF(3, 2).jumps(torch.zeros(2, 2))
    return {"drive": torch.rand(4, 2, 2), "weight": torch.eye(2), "decay": torch.rand(2, 2), "jumps": jumps,
            "surrogate": TriangularSurrogate()}  # fmt: skip


LAYER = ("granularity", "recurrent", "recurrent_granularity", "share_decay", "tau", "dt_ms", "learn", "frozen", "reset",
         "threshold", "surrogate", "detach_reset", "gain", "recurrent_gain", "generator")  # fmt: skip
CALLS = {
    "HetSynLIF": (sizes, *LAYER),
    "HetSynConnection": (sizes, "granularity", "tau", "dt_ms", "learn", "frozen", "gain", "share", "generator"),
    "attach": (trained,),
    "param_groups": (lambda: {"net": net(), "lr": 0.1}, "decay_lr"),
    "project_": (lambda: {"net": net()},),
    "HetSynNet": (lambda: {"model": "HetSynLIF", "sizes": (3, 4, 2)}, "recurrent", "neurons", "dropout", "generator"),
    "Neurons": (dict, *(field.name for field in dataclasses.fields(Neurons))),
    "make_layer": (lambda: {"model": "HetSynLIF", **sizes(), "recurrent": True, "neurons": Neurons()}, "generator"),
    "answer": (lambda: {"output": [0.0, 1.0], "target": [1.0, 0.0]}, "dt_ms", "label", "color", "spans"),
    "membranes": (lambda: {"membrane": torch.rand(4, 2)}, "spikes", "dt_ms", "threshold", "labels", "spans"),
    "tau_histogram": (lambda: {"after": torch.rand(9)}, "before"),
    "rate_penalty": (lambda: {"spikes": X, "dt_ms": 1.0}, "target_hz"),
    "AdaptationCurrent": (lambda: {"decay": 0.9, "amplitude": 0.1}, "learn"),
    "ResetCurrent": (dict, "decay", "theta", "learn"),
    "rollout": (drive, "threshold", "detach_reset"),
    "MultiGaussian": (dict, "gain", "height", "sd", "widening"),
    "TriangularSurrogate": (dict, "width"),
    "decay_of": (lambda: {"tau_ms": torch.ones(3), "dt_ms": 1.0},),
    "draw": (lambda: {"taus": 20.0, "shape": (2, 3)}, "generator"),
    "tau_of": (lambda: {"decay": torch.rand(3), "dt_ms": 1.0},),
}
RUNS = {
    "HetSynLIF": lambda **given: HetSynLIF(**given)(X),
    "HetSynConnection": lambda **given: HetSynConnection(**given)(X),
    "HetSynNet": lambda **given: HetSynNet(**given)(X),
    "Neurons": lambda **given: [hetsyn.make_layer(m, 3, 2, True, Neurons(**given))(X) for m in hetsyn.MODELS],
    "AdaptationCurrent": lambda **given: HetSynLIF(3, 2, reset=[hetsyn.AdaptationCurrent(**given)])(X),
    "ResetCurrent": lambda **given: HetSynLIF(3, 2, reset=[ResetCurrent(**given)])(X),
}  # what is made has to run, too
DRAWN = ("answer", "membranes", "tau_histogram")


def call_of(name):
    if name in DRAWN:
        ax = pytest.importorskip("matplotlib.pyplot", reason="draws").subplots()[1]
        return lambda **given: (ax.cla(), getattr(hetsyn, name)(ax=ax, **given))
    return RUNS.get(name, getattr(hetsyn, name))


@pytest.mark.slow
@pytest.mark.parametrize("name", CALLS)
def test_no_argument_of_a_call_raises_a_raw_error(name):
    assert check_arguments(call_of(name), *CALLS[name]) > 0


@pytest.mark.slow
def test_no_field_of_a_config_raises_a_raw_error():
    assert check_fields(HetSyn) > 0


def test_all_public_calls_are_tried():
    check_all_called(hetsyn, CALLS, "HetSyn", *APART)
