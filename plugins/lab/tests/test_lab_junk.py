"""Junk for every argument of every public call: taken, or told in full."""

from __future__ import annotations

import dataclasses
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import delaykit as dk
import delaykit_lab as lab
from delaykit.testing.junk import check_all_called, check_arguments
from delaykit_lab import Comparison, DelayTraining, EventSet, FitConfig, Frames, Job, Resumable, Splits

APART = (  # of scripts' own command lines; interfaces; what calls return, which nobody makes
    "command_line", "data_folder", "read_options", "Task", "VolleyTask", "Images", "Points", "Optimum", "Splits",
)  # fmt: skip


class Counts(nn.Linear):
    """A net that sees spike counts alone."""

    def forward(self, spikes):
        return super().forward(spikes.sum(dim=0))


def frames():
    return Frames(torch.ones(5, 4, 3, dtype=torch.uint8), torch.tensor([0, 1, 0, 1]))


def splits():
    return Splits(frames(), frames(), frames())


def trained():
    net = Counts(3, 2)
    return {"net": net, "optimizer": torch.optim.SGD(net.parameters(), lr=0.1)}


def wrapped():
    net = dk.wrap_(nn.Sequential(nn.Linear(3, 2)), {"0": dk.At(dk.FreeDelay("axonal"), reset="manual")})
    return {"net": net, "optimizer": torch.optim.SGD(dk.param_groups(net, lr=0.1))}


def events():
    return EventSet([np.array([0.1, 0.2])], [np.array([3, 4])], np.array([0]), 700)


def job():
    return Job("yin-yang", "snn:4", epochs=1, set={"samples": 32, "held": 32, "dt_ms": 1.0})


def resumable():
    return {**trained(), "path": "run", "order": torch.Generator(), "config": {"seed": 0}}


def fields(kind, *apart):
    return [field.name for field in dataclasses.fields(kind) if field.init and field.name not in apart]


TASKS = (
    "Coincidence", "NMNIST", "DVSGesture", "SHD", "SSC", "IntervalDiscrimination", "JapaneseVowels", "MatchToSample",
    "MNIST", "MovingWave", "PatternGeneration", "PSMNIST", "SMNIST", "SoundLocalisation", "YinYang",
)  # fmt: skip
CALLS = {name: (dict, *fields(getattr(lab, name))) for name in (*TASKS, "FitConfig")}
CALLS |= {
    "SpikeFiles": (lambda: {"path": "a"}, *fields(lab.SpikeFiles, "path")),
    "Comparison": (lambda: {"task": "yin-yang", "methods": ("none",)}, *fields(Comparison, "task", "methods")),
    "Job": (lambda: {"task": "yin-yang", "model": "snn:4"}, *fields(Job, "task", "model")),
    "compare": (
        lambda: {"comparison": Comparison("yin-yang", ("none",)), "out": None}, "workers", "backend", "cluster",
        "resume",
    ),
    "train": (lambda: {"job": job(), "out": None}, "seeds", "device", "resume", "on_epoch"),
    "train_job": (lambda: {"job": job(), "splits": 3}, "state", "score_test", "watch", "accelerator"),
    "fit": (
        lambda: {**trained(), "splits": splits(), "config": FitConfig(1)}, "advance", "on_epoch", "checkpoint",
        "identity", "device", "forward",
    ),
    "predict": (lambda: {"net": Counts(3, 2), "frames": frames()}, "batch_size", "device", "forward"),
    "Frames": (lambda: vars(frames()),),
    "Frames.subset": (lambda: {"index": torch.tensor([0, 1])},),
    "Frames.batch": (lambda: {"index": torch.tensor([0, 1])}, "device"),
    "EventSet": (lambda: vars(events()),),
    "bin_events": (lambda: {"events": events(), "dt_ms": 10.0, "channels": 140}, "duration_ms", "incomplete"),
    "read_idx": (lambda: {"path": "a.idx"},),
    "read_utterances": (lambda: {"split": "train"}, "folder"),
    "delete_spikes": (
        lambda: {"spikes": torch.ones(3, 2, 4), "probability": 0.5, "generator": torch.Generator()},
    ),
    "warp_factors": (lambda: {"count": 3, "generator": torch.Generator()}, "largest"),
    "warp_time": (lambda: {"events": events(), "factor": 1.5},),
    "locate": (lambda: {"path": ".", "split": "train"},),
    "mark_for_tonic": (lambda: {"folder": "."},),
    "read_events": (lambda: {"path": "a.h5"}, "n_units"),
    "record_path": (lambda: {"folder": Path(), "settings": {}}, "name"),
    "remembered": (lambda: {"path": Path("r.json"), "settings": {}, "run": dict}, "data"),
    "distance": (
        lambda: {"answer": torch.rand(9, 1, 1), "target": torch.rand(9, 1, 1), "first": slice(0, 3),
                 "second": slice(3, 6)},
    ),
    "iterations_to": (lambda: {"accuracy": [0.5, 1.0]}, "level", "window"),
    "first_spike_loss": (
        lambda: {"times": torch.rand(2, 3), "labels": torch.tensor([0, 1])}, "sharpness", "margin", "silent",
    ),
    "first_to_spike": (lambda: {"times": torch.rand(2, 3)},),
    "DelayTraining": (wrapped,),
    "DelayTraining.advance": (lambda: {"progress": 0.5},),
    "DelayTraining.save": (lambda: {"path": "d"},),
    "DelayTraining.load": (lambda: {"path": "d"},),
    "lightning_callback": (dict,),
    "Resumable": (resumable, "best"),
    "Resumable.epochs": (lambda: {"count": 0}, "title"),
}  # fmt: skip


def call_of(name):
    owner, _, method = name.partition(".")
    if owner == "Frames" and method:
        return getattr(frames(), method)
    if owner == "DelayTraining" and method:
        return getattr(DelayTraining(**wrapped()), method)
    if name == "Resumable.epochs":
        return lambda **given: list(Resumable(**resumable()).epochs(**given))
    return getattr(lab, name)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in CALLS if name != "lightning_callback"])
def test_no_argument_of_a_call_raises_a_raw_error(name, tmp_path, monkeypatch, writer):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.idx").write_bytes(struct.pack(">4BI", 0, 0, 8, 1, 2) + b"ab")
    DelayTraining(**wrapped()).save("d")
    if name == "read_events":
        writer(tmp_path / "a.h5", samples=2)
    base, *more = CALLS[name]
    assert check_arguments(call_of(name), base, *more) > 0


def test_all_public_calls_are_tried():
    check_all_called(lab, CALLS, *APART)
