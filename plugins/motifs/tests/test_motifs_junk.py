"""Junk for every argument of every public call: taken, or told in full."""

from __future__ import annotations

import dataclasses

import pytest
import torch

import delaykit as dk
import delaykit_motifs as motifs
from delaykit.testing.junk import check_all_called, check_arguments, check_fields
from delaykit_motifs import Motif, MotifMemory, Setting

SITE = dk.Site("fc", 3, 3)
APART = ("Point", "Run", "Training")  # what calls return, which nobody makes


def taps():
    return torch.rand(3, 3, 2)


def patterns():
    return torch.rand(8, 2, 3) > 0.7


def memory():
    return MotifMemory(taps())


def compared():
    return {"recalled": patterns(), "target": patterns()}


def remembered():
    return {"memory": memory(), "patterns": patterns()}


def small():
    return {"neurons": 8, "time": 9, "patterns": 2, "depth": 3, "rate": 0.2}


CALLS = {
    "Motif": (lambda: {"depth": 3}, "scale", "learn"),
    "from_delay": (lambda: {"delay": dk.FreeDelay("synaptic").build(SITE), "weight": torch.rand(3, 3)}, "depth"),
    "strongest_taps": (lambda: {"taps": taps(), "count": 1},),
    "to_delays": (lambda: {"taps": motifs.strongest_taps(taps(), 1)},),
    "to_free_delay": (lambda: {"taps": motifs.strongest_taps(taps(), 1)}, "learn"),
    "MotifDelay": (lambda: {"config": Motif(3), "site": SITE}, "generator"),
    "MotifDynamics": (dict, "theta", "beta", "reset"),
    "Setting": (small, *(f.name for f in dataclasses.fields(Setting) if f.name not in small())),
    "robustness": (lambda: {**remembered(), "noise": "flip", "level": 0.1}, "generator"),
    "sweep": (lambda: {"base": Setting(**small()), "field": "rate", "values": [0.1]}, "seeds"),
    "cross_correlogram": (lambda: {"patterns": patterns(), "depth": 2},),
    "hebbian": (lambda: {"patterns": patterns(), "depth": 2}, "dynamics", "normalise", "deconvolve", "dtype"),
    "ridge": (
        lambda: {"patterns": patterns(), "depth": 2, "steps": 2}, "dynamics", "penalty", "deconvolve", "tolerance",
        "dtype",
    ),
    "MotifMemory": (lambda: {"taps": taps()}, "dynamics"),
    "MotifMemory.recall": (lambda: {"cue": patterns()[:2], "steps": 3}, "noise", "mute", "join", "runaway"),
    "MotifMemory.membrane": (lambda: {"patterns": patterns()},),
    "MotifMemory.save": (lambda: {"path": "a"},),
    "MotifMemory.load": (lambda: {"path": "a"},),
    "f1": (compared, "start"),
    "f1_over_time": (compared, "start", "width"),
    "f1_per_pattern": (compared, "start"),
    "free_run": (
        lambda: {"taps": taps(), "drive": torch.rand(4, 2, 3), "dynamics": motifs.MotifDynamics()}, "clamp", "mute",
        "runaway",
    ),
    "flip_cue": (lambda: {"cue": patterns(), "fraction": 0.1}, "generator"),
    "silence": (lambda: {"neurons": 3, "fraction": 0.5}, "generator"),
    "truncate_cue": (lambda: {"cue": patterns(), "keep": 0.5},),
    "tapped_correlation": (lambda: {"spikes": torch.rand(4, 2, 3), "current": torch.rand(4, 2, 3), "depth": 2},),
    "tapped_linear": (lambda: {"spikes": torch.rand(4, 2, 3), "taps": taps()}, "bias"),
    "bernoulli_patterns": (lambda: {"time": 4, "patterns": 2, "neurons": 3, "rate": 0.2}, "generator"),
    "evidence_of": (lambda: {"rate": 0.1, "refractory": 3},),
    "evidence_patterns": (lambda: {"evidence": torch.rand(4, 2, 3), "refractory": 2}, "generator"),
    "plot_f1_over_time": (lambda: {"runs": {"a": (patterns(), patterns())}, "depth": 2}, "width"),
    "plot_motif": (lambda: {"taps": taps(), "post": 1}, "most", "label"),
    "plot_recall": (lambda: {"recalled": patterns()[:, 0], "target": patterns()[:, 0], "depth": 2}, "neurons"),
    "plot_sweep": (
        lambda: {"runs": {"a": [motifs.Point(1.0, 0, 0.5, 0.5, 0.1, 0.1)]}, "label": "x"}, "title", "log",
    ),
    "free_running_spikes": (remembered, "slope"),
    "hinge_loss": (lambda: {"membrane": torch.rand(4, 2, 3), "target": patterns()[:4], "theta": 0.5}, "margin"),
    "recall_score": (remembered,),
    "train_free_running": (lambda: {**remembered(), "steps": 1}, "lr", "slope", "clip", "pooled"),
    "train_teacher_forced": (lambda: {**remembered(), "steps": 1}, "lr", "margin", "tolerance"),
}  # fmt: skip


def call_of(name):
    if name.startswith("plot_"):
        ax = pytest.importorskip("matplotlib.pyplot", reason="draws").subplots()[1]
        return lambda **given: (ax.cla(), getattr(motifs, name)(ax=ax, **given))
    if name == "sweep":
        return lambda **given: list(motifs.sweep(**given))
    if name == "Setting":  # what is made has to run, too
        return lambda **given: (made := Setting(**given)).write(made.draw(0))
    return getattr(memory(), name.rpartition(".")[2]) if "." in name else getattr(motifs, name)


@pytest.mark.slow
@pytest.mark.parametrize("name", CALLS)
def test_no_argument_of_a_call_raises_a_raw_error(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    memory().save("a")
    assert check_arguments(call_of(name), *CALLS[name]) > 0


@pytest.mark.slow
def test_no_field_of_a_config_raises_a_raw_error():
    assert check_fields(Motif, depth=3) > 0


def test_all_public_calls_are_tried():
    check_all_called(motifs, CALLS, *APART)
