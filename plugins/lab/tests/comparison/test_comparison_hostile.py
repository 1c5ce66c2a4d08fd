"""What the machine does to a comparison is told in sentences, and nothing that is finished is lost."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

import delaykit as dk
from delaykit_lab import Comparison, compare
from delaykit_lab.commands.compare import compare as command
from delaykit_lab.comparison import workers
from delaykit_lab.training import experiment, trainer

WORDS = ["--task", "moving-wave", "--model", "snn:6", "--methods", "none,dcls", "--max-delay", "12", "--epochs", "1",
         "--seeds", "2", "--rates", "0.01", "--set", "samples=64", "--set", "held=32", "--workers", "1"]  # fmt: skip


def small():
    return Comparison("moving-wave", ("none", "dcls"), {"samples": 64, "held": 32}, model="snn:6", max_delay=12,
                      epochs=1, seeds=2, rates=(0.01,))  # fmt: skip


def test_a_place_that_cannot_be_written_is_a_sentence(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    done = CliRunner().invoke(command, [*WORDS, "--out", str(tmp_path / "file" / "r")])
    assert done.exit_code == 1 and "cannot be written" in done.output and "another --out" in done.output

    def forbidden(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(experiment, "prepare_folder", forbidden)
    monkeypatch.setattr("delaykit_lab.comparison.run.prepare_folder", forbidden)
    done = CliRunner().invoke(command, [*WORDS, "--out", str(tmp_path / "r")])
    assert done.exit_code == 1 and "Permission denied" in done.output and "Traceback" not in done.output


@pytest.mark.slow
@pytest.mark.parametrize("full_at", ["save_run", "record", "report"])
def test_a_full_disk_loses_nothing_that_is_finished(tmp_path, monkeypatch, full_at):
    whole, calls = compare(small(), tmp_path / "whole"), []
    owner, name = {"save_run": (trainer, "save_run"), "record": (workers, "remembered"),
                   "report": (sys.modules["delaykit_lab.comparison.run"], "write_json")}[full_at]  # fmt: skip
    real = getattr(owner, name)

    def full(*words):
        calls.append(1)
        if len(calls) >= 2:
            raise OSError(28, "No space left on device")
        return real(*words)

    monkeypatch.setattr(owner, name, full)
    with pytest.raises(dk.ConfigError, match="No space left.*pass --resume"):
        compare(small(), tmp_path / "r")
    monkeypatch.undo()
    assert compare(small(), tmp_path / "r", resume=True) == whole
    assert (tmp_path / "r" / "results.json").read_bytes() == (tmp_path / "whole" / "results.json").read_bytes()


def test_ctrl_c_names_resume(tmp_path, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(trainer, "train_job", interrupt)
    done = CliRunner().invoke(command, [*WORDS, "--out", str(tmp_path / "r")])
    assert done.exit_code == 1 and "add --resume to go on" in done.output


def test_no_bar_is_left_above_an_early_error(tmp_path):
    (tmp_path / "file").write_text("no folder")
    done = CliRunner().invoke(command, [*WORDS, "--out", str(tmp_path / "file" / "r")])
    assert done.exit_code == 1 and "a writable one" in done.output
    assert "searching widths" not in done.output


def test_a_training_and_a_comparison_do_not_go_on_with_one_another(tmp_path):
    for name in ("log.jsonl", "seed3.json"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / name).write_text("{}")
        with pytest.raises(dk.ConfigError, match="found a training; expected a folder for a comparison.*another --out"):
            compare(small(), tmp_path / name, resume=True)
    (tmp_path / "plan.json").write_text("{}")
    job = small().job(small().rows()[0], (6,), 0.01, 0)
    with pytest.raises(dk.ConfigError, match="found a comparison; expected a folder for a training.*another --out"):
        experiment.train(job, tmp_path, device="cpu", resume=True)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["log.jsonl", "plan.json", "seed3.json"]


def test_a_finished_run_without_its_network_is_told(tmp_path):
    job = small().job(small().rows()[0], (6,), 0.01, 0)
    workers.remembered(tmp_path / "seed0.json", job.to_json(), lambda: {"history": []})
    with pytest.raises(dk.CheckpointError, match=r"seed0.json: found .*network is gone.*net0.safetensors"):
        experiment.train(job, tmp_path, device="cpu", resume=True)


def test_a_finished_run_with_a_damaged_network_is_told_and_its_log_written_again(tmp_path):
    job = dataclasses.replace(small().job(small().rows()[0], (6,), 0.01, 0), epochs=1)
    experiment.train(job, tmp_path, device="cpu")
    log = (tmp_path / "log.jsonl").read_bytes()
    (tmp_path / "log.jsonl").write_bytes(log[:20])
    experiment.train(job, tmp_path, device="cpu", resume=True)
    assert (tmp_path / "log.jsonl").read_bytes() == log
    [network] = tmp_path.glob("net0*.safetensors")
    network.write_bytes(network.read_bytes()[:-1])
    with pytest.raises(dk.CheckpointError, match=r"net0.*damaged"):
        experiment.train(job, tmp_path, device="cpu", resume=True)


def test_what_is_in_the_way_is_not_a_full_disk(tmp_path):
    job = small().job(small().rows()[0], (6,), 0.01, 0)
    (tmp_path / "a" / "log.jsonl").mkdir(parents=True)
    (tmp_path / "b" / "seed0.json").mkdir(parents=True)
    (tmp_path / "file").write_text("")
    for out, sentence in (("a", "log.jsonl.*To go on: move it out of the way or pass another --out"),
                          ("file", "To go on: move it out of the way"), ("file/r", "To go on: move it out of the way"),
                          ("b", "seed0.json: found a folder.*move it out of the way")):  # fmt: skip
        (tmp_path / "b" / "net0.safetensors").write_text("")
        with pytest.raises(dk.DelaykitError, match=sentence):
            experiment.train(job, tmp_path / out, device="cpu", resume=True)


KILLED = """
import os, signal, sys
from delaykit_lab import Comparison, compare
from test_comparison_hostile import small

if __name__ == "__main__":
    def tell(line):
        if "trained" in line:
            os.killpg(0, signal.SIGKILL)
    compare(small(), sys.argv[1], workers=2, tell=tell)
"""


@pytest.mark.slow
def test_a_comparison_that_is_killed_with_all_its_workers_ends_in_the_same_file(tmp_path):
    (tmp_path / "killed.py").write_text(KILLED)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    words = [sys.executable, str(tmp_path / "killed.py"), str(tmp_path / "killed")]
    done = subprocess.run(words, env=environment, start_new_session=True, capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert list((tmp_path / "killed" / "runs").glob("*.json")) and not (tmp_path / "killed" / "results.json").exists()
    assert compare(small(), tmp_path / "killed", resume=True) == compare(small(), tmp_path / "whole")
    found = [(tmp_path / name / "results.json").read_bytes() for name in ("killed", "whole")]
    assert found[0] == found[1]
