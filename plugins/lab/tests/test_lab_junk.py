"""Junk for every argument of every public call: taken, or told in full."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

import delaykit as dk
import delaykit_lab as lab
from delaykit.testing.junk import check_all_called, check_arguments
from delaykit_lab import Comparison, FitConfig, Frames, Job, MovingWave, Splits

APART = (
    "BinnedEvents", "Epoch", "Optimum", "Trained", "Utterances",  # what calls return, which nobody makes
    "Task", "VolleyTask",  # abstract; their fields are tried in those that are not
    "read_options", "data_folder",  # of scripts: they end the process, as argparse does
    "lightning_callback",  # takes nothing
)  # fmt: skip


def events():
    times, units = [np.array([0.1, 0.2]), np.array([0.3])], [np.array([0, 1]), np.array([2])]
    return {"times": times, "units": units, "labels": np.array([0, 1]), "n_units": 4}


def frames():
    return Frames((torch.rand(5, 4, 2) < 0.5).to(torch.uint8), torch.tensor([0, 1, 0, 1]))


def splits():
    return Splits(frames(), frames(), frames())


def wave():
    return {"sensors": 3, "directions": 2, "samples": 4, "held": 4}


class Counts(torch.nn.Linear):
    def forward(self, x):
        return super().forward(x.sum(0))


def trained():
    net = Counts(2, 2)
    return {"net": net, "optimizer": torch.optim.SGD(net.parameters(), lr=0.1)}


def fitted():
    return {**trained(), "splits": splits(), "config": FitConfig(epochs=1)}


def job(**more):
    return Job("moving-wave", "snn:2", set=wave(), epochs=1, **more)


def training():
    # The second seed has more than 64 bits: however many are asked for, one is trained at most.
    return {"job": job(seed=2**63 - 1), "out": "out"}


def barred():
    Path("file").touch()  # in the place of the folder: nothing is trained
    return {"comparison": Comparison("moving-wave", ("free:axonal",), wave(), budget=1.0), "out": "file"}


def state():
    return {"path": "a", **trained(), "order": torch.Generator(), "config": {}}


def fields(kind, *given):
    return [field.name for field in dataclasses.fields(kind) if field.init and field.name not in (*given, "_")]


CALLS = {  # functions of the caller's own (watch, tell, on_epoch, forward ...) raise what they like
    "command_line": (lambda: {"doc": "Train.", "out": "runs/a"}, "full", "seeds", "epochs", "data"),
    "Comparison": (
        lambda: {"task": "moving-wave", "methods": ("free:axonal",)}, *fields(Comparison, "task", "methods"),
    ),
    "compare": (barred, "workers", "backend", "cluster", "resume"),
    "EventSet": (events, "keys", "speakers", "source"),
    "bin_events": (
        lambda: {"events": lab.EventSet(**events()), "dt_ms": 10.0, "channels": 2}, "duration_ms", "incomplete",
    ),
    "read_idx": (lambda: {"path": "a"},),
    "read_utterances": (lambda: {"split": "train"}, "folder"),
    "delete_spikes": (lambda: {"spikes": torch.ones(3, 2), "probability": 0.5, "generator": torch.Generator()},),
    "warp_factors": (lambda: {"count": 2, "generator": torch.Generator()}, "largest"),
    "warp_time": (lambda: {"events": lab.EventSet(**events()), "factor": 1.5},),
    "locate": (lambda: {"path": "a", "split": "train"},),
    "mark_for_tonic": (lambda: {"folder": "a"},),
    "read_events": (lambda: {"path": "a"}, "n_units"),
    "record_path": (lambda: {"folder": "a", "settings": {"lr": 0.1}}, "name"),
    "remembered": (lambda: {"path": "a", "settings": {"lr": 0.1}, "run": lambda: {"test": 1.0}}, "data"),
    "Frames": (lambda: {"spikes": torch.zeros(5, 4, 3), "labels": torch.zeros(4).long()},),
    "Frames.subset": (lambda: {"index": torch.tensor([0, 1])},),
    "Frames.batch": (lambda: {"index": torch.tensor([0, 1])}, "device"),
    "Splits": (lambda: {name: frames() for name in ("train", "validation", "test")},),
    "Coincidence": (lambda: {"samples": 4, "held": 4}, *fields(lab.Coincidence)),
    "NMNIST": (dict, *fields(lab.NMNIST)),
    "DVSGesture": (dict, *fields(lab.DVSGesture)),
    "SHD": (dict, *fields(lab.SHD)),
    "SSC": (dict, *fields(lab.SSC)),
    "IntervalDiscrimination": (lambda: {"samples": 4, "held": 4}, *fields(lab.IntervalDiscrimination)),
    "JapaneseVowels": (dict, *fields(lab.JapaneseVowels)),
    "MatchToSample": (dict, *fields(lab.MatchToSample)),
    "iterations_to": (lambda: {"accuracy": [0.5, 1.0]}, "level", "window"),
    "MNIST": (dict, *fields(lab.MNIST)),
    "Images": (lambda: {"values": torch.rand(2, 3), "labels": torch.tensor([0, 1])},),
    "MovingWave": (wave, *fields(MovingWave, *wave())),
    "PatternGeneration": (dict, *fields(lab.PatternGeneration)),
    "distance": (
        lambda: {"answer": torch.rand(9, 2, 1), "target": torch.rand(9, 2, 1), "first": slice(0, 3),
                 "second": slice(3, 6)},
    ),
    "PSMNIST": (dict, *fields(lab.PSMNIST)),
    "SMNIST": (dict, *fields(lab.SMNIST)),
    "SoundLocalisation": (lambda: {"samples": 4, "held": 4}, *fields(lab.SoundLocalisation)),
    "SpikeFiles": (lambda: {"path": "a"}, *fields(lab.SpikeFiles, "path")),
    "Points": (lambda: {"places": torch.rand(2, 2), "labels": torch.tensor([0, 1])},),
    "YinYang": (lambda: {"samples": 4, "held": 4}, *fields(lab.YinYang, "samples", "held")),
    "YinYang.splits": (lambda: {"seed": 0},),
    "first_spike_loss": (
        lambda: {"times": torch.rand(4, 3), "labels": torch.tensor([0, 1, 2, 0])}, "sharpness", "margin", "silent",
    ),
    "first_to_spike": (lambda: {"times": torch.rand(4, 3)},),
    "DelayTraining": (trained,),
    "DelayTraining.advance": (lambda: {"progress": 0.5},),
    "DelayTraining.save": (lambda: {"path": "a"},),
    "DelayTraining.load": (lambda: {"path": "a"},),
    "Job": (lambda: {"task": "moving-wave", "model": "snn:2"}, *fields(Job, "task", "model")),
    "train": (training, "seeds", "device", "resume"),
    "Resumable": (state, "best"),
    "FitConfig": (dict, *fields(FitConfig)),
    "fit": (fitted, "checkpoint", "identity", "device"),
    "predict": (lambda: {"net": Counts(2, 2), "frames": frames()}, "batch_size", "device"),
    "train_job": (lambda: {"job": job()}, "state", "score_test", "accelerator", "splits"),
}  # fmt: skip
OWNERS = {
    "Frames": frames,
    "YinYang": lambda: lab.YinYang(samples=4, held=4),
    "DelayTraining": lambda: lab.DelayTraining(**trained()),
}
DRAWN = ("Coincidence", "IntervalDiscrimination", "MovingWave", "SoundLocalisation")


def call_of(name):
    if "." in name:
        owner, _, method = name.partition(".")
        return getattr(OWNERS[owner](), method)
    if name in DRAWN:  # what is made has to say what it is
        return lambda **given: getattr(lab, name)(**given).title()
    return getattr(lab, name)


@pytest.mark.slow
@pytest.mark.parametrize("name", CALLS)
def test_no_argument_of_a_call_raises_a_raw_error(name, tmp_path, monkeypatch):
    pytest.importorskip("snntorch", reason="makes networks")
    monkeypatch.chdir(tmp_path)
    assert check_arguments(call_of(name), *CALLS[name]) > 0


def test_all_public_calls_are_tried():
    check_all_called(lab, CALLS, *APART)


@pytest.mark.parametrize("field", ["estimator", "rounding"])
def test_an_empty_word_is_named_as_what_was_found(field):
    with pytest.raises(dk.ConfigError, match=f"--{field}: found ''; expected"):
        Job("moving-wave", "snn:2", **{field: ""})
