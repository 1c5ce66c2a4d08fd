"""Junk for every argument of every public call: taken, or told in full."""

from __future__ import annotations

import dataclasses
import functools

import pytest
import torch
from torch import nn

import delaykit as dk
import delaykit_delrec as delrec
from delaykit.testing.junk import check_all_called, check_arguments, check_fields
from delaykit_delrec import DCLS, RECIPES, DelayHistory, DelRec, Recipe

APART = ("Gap", "Published", "DelayHistory")  # what calls return, and what is made without arguments


def net(config=None):
    return dk.wrap_(nn.Sequential(nn.Linear(3, 3)), {"0": dk.At(config or DelRec(), reset="manual")})


def history():
    made = DelayHistory()
    for _ in range(2):
        made.record(net())
    return made


def layer():
    return {"recurrent_weights": torch.rand(3, 3), "recurrent_delays": torch.rand(3), "p_spread": torch.rand(3)}


def recipe():
    return dataclasses.asdict(next(iter(RECIPES.values())))


CALLS = {
    "DelayHistory.record": (lambda: {"net": net()},),
    "DelayHistory.movement": (lambda: {"site": "0"},),
    "DelayHistory.at_bounds": (lambda: {"site": "0"},),
    "bounds_curve": (lambda: {"history": history()},),
    "delay_evolution": (lambda: {"history": history(), "site": "0"}, "bins"),
    "movement_curve": (lambda: {"history": history()},),
    "spread_curve": (lambda: {"history": history()},),
    "load_published_": (
        lambda: {"connection": net(DelRec(learn_spread=True))[0], "layer": delrec.read_published(layer())[""],
                 "sigma": 0.1},
    ),
    "read_published": (lambda: {"source": layer()},),
    "Recipe": (recipe,),
    "Recipe.groups": (lambda: {"net": net()},),
    "Recipe.make_optimizer": (lambda: {"net": net()},),
    "Recipe.make_scheduler": (
        lambda: {"optimizer": next(iter(RECIPES.values())).make_optimizer(net()), "epochs": 3},
    ),
    "spike_penalty": (lambda: {"spikes": torch.rand(3, 2, 3), "strength": 0.1},),
    "discretization_gap": (lambda: {"net": net()},),
}  # fmt: skip
DRAWN = ("bounds_curve", "delay_evolution", "movement_curve", "spread_curve")


def trains(**given):
    made = Recipe(**given)
    optimizer = made.make_optimizer(net())
    optimizer.step()
    made.make_scheduler(optimizer, 3)


def call_of(name):
    if name in DRAWN:
        ax = pytest.importorskip("matplotlib.pyplot", reason="draws").subplots()[1]
        return lambda **given: (ax.cla(), getattr(delrec, name)(ax=ax, **given))
    owner, _, method = name.partition(".")
    if method:
        return getattr(history() if owner == "DelayHistory" else next(iter(RECIPES.values())), method)
    if name == "discretization_gap":  # what the caller's own function raises is the caller's
        return functools.partial(delrec.discretization_gap, score=lambda net: 0.5)
    return trains if name == "Recipe" else getattr(delrec, name)


@pytest.mark.slow
@pytest.mark.parametrize("name", CALLS)
def test_no_argument_of_a_call_raises_a_raw_error(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert check_arguments(call_of(name), *CALLS[name]) > 0


@pytest.mark.slow
@pytest.mark.parametrize("config", [DCLS, DelRec])
def test_no_field_of_a_config_raises_a_raw_error(config):
    assert check_fields(config) > 0


def test_all_public_calls_are_tried():
    check_all_called(delrec, CALLS, "DCLS", "DelRec", *APART)
