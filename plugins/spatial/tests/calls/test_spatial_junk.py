"""Junk for every argument of every public call: taken, or told in full."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

import delaykit as dk
import delaykit_spatial as spatial
from delaykit.testing.junk import check_all_called, check_arguments, check_fields
from delaykit_spatial import Spatial
from delaykit_spatial.exact.neuron import ExactAdEx
from delaykit_spatial.geometry import METRICS

SITE = dk.Site("fc", 3, 4)
# What calls return, which nobody makes.
RESULTS = ("LateArrivals", "ParameterAccounting", "Placement", "SpatialLink", "SpatialReport")


def net():
    rule = Spatial(2, pre="input", post="out")
    return dk.wrap_(nn.Sequential(nn.Linear(3, 4)), {"0": dk.At(rule, reset="manual")})


def history():
    made = spatial.PositionHistory()
    made.record(net())
    return made


def layer():
    return {"pre": 3, "neurons": 4, "spatial": Spatial(2)}


def kept():
    return {"delays_ms": torch.rand(4, 3) * 90, "kept": torch.rand(4, 3) > 0.5}


OPTIONS = ("estimator", "once", "rescale_every", "min_slope", "factors", "generator")
CALLS = {
    "channel_order": (lambda: {"weight": torch.rand(4, 3)},),
    "communities": (lambda: {"weight": torch.rand(4, 4)}, "seed", "resolution"),
    "degree_distribution": (lambda: {"kept": torch.rand(4, 3) > 0.5},),
    "equal_weights_": (lambda: {"net": net()}, "value"),
    "kept_by_latency": (kept, "width_ms"),
    "SpatialConnection": (lambda: {"site": SITE, "config": Spatial(2), "factor": 1.0}, "generator"),
    "share_positions_": (lambda: {"net": net()},),
    "SpatialDelay": (lambda: {"config": Spatial(2), "site": SITE}, "generator"),
    "export_positions": (lambda: {"net": net(), "path": "a.csv"}, "unit"),
    "read_positions": (lambda: {"path": "a.csv"},),
    "Torus": (lambda: {"period": 2.0},),
    "register_metric": (lambda: {"name": "mine", "metric": spatial.Torus(2.0)},),
    "PositionHistory": (dict, "positions"),
    "PositionHistory.record": (lambda: {"net": net()},),
    "PositionHistory.movement": (lambda: {"population": "out"},),
    "LIF": (layer, "recurrent", "name", "tau_mem", "tau_syn", "dt_ms", "threshold", *OPTIONS),
    "AdEx": (layer, "recurrent", "name", "neuron", *OPTIONS),
    "channel_matrix": (lambda: {"weight": torch.rand(4, 3)}, "channel"),
    "delay_against_distance": (lambda: {"net": net(), "site": "0"}, "unit"),
    "kept_fraction": (kept, "width_ms"),
    "position_map": (lambda: {"net": net()}, "history", "connections", "axes", "unit"),
    "spatial_param_groups": (lambda: {"net": net(), "lr": 0.1}, "factor", "weight_decay"),
    "late_arrivals": (lambda: {"delay": net()[0].dk.delay, "spikes": torch.ones(3, 1, 3)},),
    "links": (lambda: {"net": net()},),
    "parameter_accounting": (lambda: {"net": net()},),
    "populations": (lambda: {"net": net()},),
    "spatial_report": (lambda: {"net": net()}, "steps"),
}
LAYERS = {"LIF": spatial.LIF, "AdEx": spatial.AdEx}
DRAWN = ("channel_matrix", "delay_against_distance", "kept_fraction", "position_map")


def call_of(name, monkeypatch):
    if name.startswith("PositionHistory."):
        return getattr(history(), name.rpartition(".")[2])
    if name in LAYERS:  # what is made has to run, too
        return lambda **given: LAYERS[name](**given)(torch.ones(4, 2, 3))
    if name in DRAWN:
        pyplot = pytest.importorskip("matplotlib.pyplot", reason="draws")
        ax = pyplot.subplots()[1]
        return lambda **given: (ax.cla(), getattr(spatial, name)(ax=ax, **given))
    return getattr(spatial, name)


@pytest.mark.slow
@pytest.mark.parametrize("name", CALLS)
def test_no_argument_of_a_call_raises_a_raw_error(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("delaykit_spatial.geometry.METRICS", dict(METRICS))
    spatial.export_positions(net(), "a.csv")
    assert check_arguments(call_of(name, monkeypatch), *CALLS[name]) > 0


@pytest.mark.slow
def test_no_field_of_a_config_raises_a_raw_error():
    assert check_fields(Spatial) > 0
    fields = [field.name for field in dataclasses.fields(ExactAdEx)]
    base, more = {"tau_mem": 10.0, "tau_syn": 2.0}, fields[2:]
    assert check_arguments(lambda **given: spatial.AdEx(**layer(), neuron=ExactAdEx(**given)), base.copy, *more) > 0


def test_all_public_calls_are_tried():
    check_all_called(spatial, CALLS, "Spatial", *RESULTS)
