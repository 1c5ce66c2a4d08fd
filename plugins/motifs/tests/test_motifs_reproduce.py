"""The published training: its loss is the mean F1 of patterns, and its script leaves a record of recall over time."""

from __future__ import annotations

import dataclasses
import json
import sys
from types import ModuleType

import pytest
import torch

from delaykit_motifs import Setting, f1, f1_per_pattern, train_free_running
from delaykit_motifs.training import f1_loss


@pytest.fixture
def bptt(script) -> ModuleType:
    pytest.importorskip("delaykit_lab", reason="needs the plugin delaykit-lab")
    return script("bptt")


def test_the_loss_is_pooled_or_the_mean_of_patterns() -> None:
    generator = torch.Generator().manual_seed(0)
    spikes, target = ((torch.rand(30, 3, 5, generator=generator) < rate).float() for rate in (0.3, 0.2))
    spikes[:, 0] = target[:, 0]  # one pattern is perfect: the two means differ
    assert float(f1_loss(spikes, target)) == pytest.approx(1 - f1(spikes, target), abs=1e-6)
    mean = float(f1_per_pattern(spikes, target).mean())
    assert float(f1_loss(spikes, target, pooled=False)) == pytest.approx(1 - mean, abs=1e-6)
    assert abs(mean - f1(spikes, target)) > 0.01


def test_free_running_training_reports_the_mean_of_patterns() -> None:
    setting = Setting(neurons=32, time=80, patterns=3, depth=11, rate=0.02, normalise="mean")
    patterns = setting.draw(0)
    memory = setting.write(patterns)
    recalled = memory.recall(patterns[:11], 80, runaway=1.0).spikes
    wanted = 1 - float(f1_per_pattern(recalled, patterns, 11).mean())
    report = train_free_running(memory, patterns, steps=1, pooled=False)
    assert report.losses[0] == pytest.approx(wanted, abs=1e-6)


def test_the_papers_size(bptt) -> None:
    full = bptt.FULL
    assert (full.neurons, full.patterns, full.time, full.depth, full.rate) == (512, 16, 1000, 41, 1e-3)
    assert bptt.STARTS[0] == "published"


def test_training_leaves_a_record_and_goes_on(bptt, tmp_path, monkeypatch, capsys) -> None:
    tiny = dataclasses.replace(bptt.SMALL, neurons=24, time=80, patterns=2, depth=11, rate=0.02)
    monkeypatch.setattr(bptt, "SMALL", tiny)
    monkeypatch.setattr(sys, "argv", ["x", "--steps", "5", "--starts", "mean", "--out", str(tmp_path)])
    bptt.main()
    assert "| mean |" in capsys.readouterr().out
    (record,) = (json.loads(path.read_text()) for path in tmp_path.glob("*.json"))
    result = record["result"]
    assert len(result["f1"]) == 5 and result["after"] == max(result["f1"])
    assert set(result["over_time"]) == {"1", "2", "3", "4", "5"} and len(result["over_time_before"]) == 2
    assert not list(tmp_path.glob("*.safetensors")) and not list(tmp_path.glob("*.best"))


def test_a_result_is_recorded_with_its_whole_setting(script, tmp_path) -> None:
    pytest.importorskip("delaykit_lab", reason="needs the plugin delaykit-lab")
    module = script("working_memory")
    assert (module.HEADLINE.neurons, module.HEADLINE.time, module.HEADLINE.patterns, module.HEADLINE.depth) == (
        512, 1000, 16, 41,
    )  # fmt: skip
    tiny = Setting(neurons=16, time=60, patterns=1, depth=11, rate=0.02)
    results = module.Results(tmp_path)
    first = results.once("headline", lambda: module.record(tiny, 3), tiny, 3, steps=0)
    assert results.once("headline", lambda: {}, tiny, 3, steps=0) == first
    (path,) = tmp_path.glob("headline_steps_0_3-*.json")
    settings = json.loads(path.read_text())["settings"]
    assert settings["setting"]["neurons"] == 16 and settings["seed"] == 3 and settings["steps"] == 0


@pytest.mark.slow
def test_noise_and_capacity_are_measured_with_trained_taps_too(script, tmp_path, monkeypatch) -> None:
    pytest.importorskip("delaykit_lab", reason="needs the plugin delaykit-lab")
    module = script("working_memory")
    tiny = Setting(neurons=24, time=80, patterns=2, depth=11, rate=0.02)
    monkeypatch.setattr(module, "HEADLINE", tiny)
    monkeypatch.setattr(module, "SWEPT", tiny)
    noises = {"flip": (0.0, 0.25), "truncate": (1.0,), "background": (0.0,), "silence": ()}
    monkeypatch.setattr(module, "NOISES", noises)
    results = module.Results(tmp_path)
    module.robustness(results, full=False)
    module.capacity(results, full=False)
    records = [json.loads(one.read_text()) for one in tmp_path.glob("*.json")]
    assert sum(one["settings"]["what"] == "robustness_trained" for one in records) == 8
    trained = {one["settings"]["patterns"] for one in records if one["settings"].get("steps") == 100}
    assert trained == {8, 16, 32} and (tmp_path / "capacity.png").exists()
