"""Values of another type are told by name, before anything is made of them."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from click.testing import CliRunner

import delaykit as dk
from delaykit_lab import (
    DelayTraining,
    FitConfig,
    Frames,
    MovingWave,
    PatternGeneration,
    Resumable,
    Splits,
    read_events,
    read_idx,
    read_utterances,
)
from delaykit_lab.commands.compare import compare
from delaykit_lab.commands.train import train
from delaykit_lab.training.augment import Augment


@pytest.mark.parametrize("name", [component.name for component in dk.components("task")])
def test_every_option_of_every_task_refuses_what_is_not_of_its_type(name):
    kind = dk.resolve("task", name)
    needed = {"path": "data"} if name == "spike-files" else {}
    for field in dataclasses.fields(kind):
        for wrong in (object(), b"1", torch.ones(2)):
            with pytest.raises(dk.ConfigError, match=rf"{kind.__name__}\.{field.name}: found"):
                kind(**needed | {field.name: wrong})


@pytest.mark.parametrize("make", [
    lambda: MovingWave("a"), lambda: MovingWave(samples=2.5), lambda: MovingWave(sweep=True), lambda: Frames([1], [2]),
    lambda: Splits(None, None, None), lambda: FitConfig(epochs=True), lambda: FitConfig(batch_size=2.5),
    lambda: PatternGeneration(onsets_ms=("a",)), lambda: PatternGeneration(cosines=1.5), lambda: Augment(shift="a"),
    lambda: read_events(None), lambda: read_idx(None), lambda: read_utterances("train", 3),
    lambda: Resumable(None, None, None, None, {}),
    lambda: DelayTraining(torch.nn.Linear(1, 1), torch.optim.SGD([torch.zeros(1)])).save(None),
])  # fmt: skip
def test_from_python_as_from_files(make):
    with pytest.raises(dk.ConfigError, match="found .*; expected"):
        make()


TASK = 'task = "moving-wave"\nmodel = "snn:4"\nepochs = 1\nmethods = ["none"]\n{}\n[set]\nsamples = 32\nheld = 32\n'


@pytest.mark.parametrize(("command", "line", "sentence"), [
    (train, "epoch = 3", "one of task, model, methods"), (train, "epoch = 3", "with, seeds, out, device"),
    (train, "divice = 'cpu'", "did you mean 'device'"), (train, "seeds = true", "Run.seeds: found True"),
    (train, "seeds = 0", ">= 1"), (train, "device = ['cpu']", "Run.device"), (train, "out = 3", "Run.out"),
    (compare, "worker = 2", "did you mean 'workers'"), (compare, "workers = '2'", "Run.workers"),
    (compare, "workers = 0", ">= 1"), (compare, "backend = 'slurm'", "processes, submitit"),
    (compare, "out = 3", "Run.out"),
])  # fmt: skip
def test_a_file_may_hold_what_the_command_line_says(tmp_path, monkeypatch, command, line, sentence):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.toml").write_text(TASK.format(line).replace('"none"', '"free"' if command is train else '"none"'))
    done = CliRunner().invoke(command, ["--config", "c.toml"])
    assert done.exit_code == 1 and sentence in " ".join(done.output.split()), done.output


def test_words_of_the_command_line_win_over_the_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    (tmp_path / "c.toml").write_text(TASK.format("out = 'file/from-file'\nworkers = 1"))
    for words, where in (([], "file/from-file"), (["--out", "file/from-line"], "file/from-line")):
        done = CliRunner().invoke(compare, ["--config", "c.toml", *words])
        assert done.exit_code == 1 and f"Error: {where}: found a place that cannot be written" in done.output
