"""Junk for every argument of every public call: taken, or told in full."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import delaykit as dk
from delaykit.testing.junk import check_arguments, check_fields

snn = pytest.importorskip("snntorch", reason="rolls a neuron out")

X = torch.ones(4, 2, 3)


def bare():
    return nn.Sequential(nn.Linear(3, 3))


def rules():
    return {"0": dk.At(dk.FreeDelay("axonal"), reset="manual")}


def net():
    return dk.wrap_(bare(), rules())


def trained():
    model = net()
    return {"optimizer": torch.optim.SGD(model.parameters(), lr=0.1), "net": model}


def neuron():
    return snn.RLeaky(0.9, linear_features=3)


CALLS = {
    "wrap": (lambda: {"net": bare(), "rules": rules()}, "example", "generator"),
    "wrap_": (lambda: {"net": bare(), "rules": rules()}, "example", "generator"),
    "plan": (lambda: {"net": bare(), "rules": rules()}, "example"),
    "unwrap_": (lambda: {"net": net()},),
    "finalize_": (lambda: {"net": net()},),
    "disabled": (lambda: {"net": net()},),
    "discretized": (lambda: {"net": net()}, "step", "max_delay", "bits"),
    "reset": (lambda: {"net": net()}, "rows"),
    "detach": (lambda: {"net": net()},),
    "status": (lambda: {"net": net()},),
    "wrapped_sites": (lambda: {"net": net()},),
    "save": (lambda: {"net": net(), "path": "d"}, "with_model"),
    "load": (lambda: {"net": net(), "path": "d"},),
    "param_groups": (lambda: {"net": net(), "lr": 0.1}, "delay_lr", "weight_decay"),
    "attach": (trained,),
    "advance_": (lambda: {"net": net(), "progress": 0.5},),
    "rollout": (lambda: {"neuron": neuron(), "currents": X}, "recurrent_mask"),
    "fused": (lambda: {"net": net()}, "example", "check", "loop"),
    "fit_hardware_": (lambda: {"net": net(), "target": "loihi"}, "score"),
    "to_nir": (lambda: {"net": net(), "example": X, "dt_ms": 1.0}, "reset", "fractions", "path"),
    "from_nir": (lambda: {"graph": "x"}, "dt_ms", "reset"),
    "backend": (lambda: {"name": "torch"},),
    "components": (lambda: {"kind": "delay"},),
    "citation": (lambda: {"component": "free"}, "style"),
    "resolve": (lambda: {"kind": "delay", "name": "free"},),
    "At": (dict, "reset", "time_dim"),
    "Recurrent": (dict, "weight", "bias", "reset"),
    "Target": (lambda: {"name": "mine", "max_delay": 5}, "step", "delay_bits", "weight_bits", "source"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CALLS)
def test_no_argument_of_a_call_raises_a_raw_error(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check_arguments(getattr(dk, name), *CALLS[name])


@pytest.mark.slow
@pytest.mark.parametrize("config", [dk.FreeDelay, dk.TimeConstants])
def test_no_field_of_a_config_raises_a_raw_error(config):
    assert check_fields(config) > 0


def test_a_raw_error_and_a_short_one_are_found():
    def raw(number):
        return number + 1

    def short(number):
        raise dk.ConfigError("short", repr(type(number)))

    for call, told in ((raw, "a raw TypeError"), (short, "no word of expected")):
        with pytest.raises(AssertionError, match=told):
            check_arguments(call, lambda: {"number": 1})
