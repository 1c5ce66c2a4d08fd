"""What scripts share: finished runs are not repeated, interrupted ones go on, options are read in one way."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re

import pytest
import torch
from torch import nn

from delaykit import CheckpointError, TrainingError
from delaykit_lab import Resumable, command_line, data_folder, read_options, record_path, remembered


@dataclasses.dataclass(frozen=True)
class Run:
    lr: float = 0.1
    hidden: tuple[int, ...] = (8, 4)
    dims: float = math.inf
    seed: int = 0


def counted(result):
    """A run that says how often it was run."""
    calls = []

    def run():
        calls.append(1)
        return result

    return run, calls


@pytest.mark.parametrize("settings", [Run(), dataclasses.asdict(Run())], ids=["dataclass", "mapping"])
def test_a_finished_run_is_read_not_run(tmp_path, settings):
    run, calls = counted({"test": 0.5, "shape": (1, 2)})
    path = record_path(tmp_path / "new" / "folder", settings, "learned_0")
    first, second = remembered(path, settings, run), remembered(path, settings, run)
    assert first == second == {"test": 0.5, "shape": [1, 2]} and len(calls) == 1
    assert [p.name for p in path.parent.iterdir()] == [path.name]  # nothing half-written stays


def test_a_dataclass_and_its_mapping_are_one_run(tmp_path):
    assert record_path(tmp_path, Run()) == record_path(tmp_path, dataclasses.asdict(Run()))


def test_other_settings_never_replace_a_finished_run(tmp_path):
    names = set()
    for settings in (Run(), Run(seed=1), Run(lr=0.2), Run(hidden=(8,))):
        path = record_path(tmp_path, settings, "learned")
        remembered(path, settings, lambda s=settings: {"lr": s.lr, "seed": s.seed})
        names.add(path.name)
    assert len(names) == 4
    again = record_path(tmp_path, Run(lr=0.2), "learned")
    assert remembered(again, Run(lr=0.2), lambda: {}) == {"lr": 0.2, "seed": 0}


def test_a_run_that_fails_leaves_no_record(tmp_path):
    path = record_path(tmp_path, Run())

    def broken():
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        remembered(path, Run(), broken)
    assert remembered(path, Run(), lambda: {"test": 1.0}) == {"test": 1.0}


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"settings": {}}', '{"result": {}}'])
def test_a_damaged_or_foreign_record_is_named(tmp_path, text):
    path = record_path(tmp_path, Run())
    path.write_text(text)
    with pytest.raises(CheckpointError, match="delete it") as caught:
        remembered(path, Run(), lambda: {})
    assert str(path) in str(caught.value)


def test_a_record_of_other_settings_is_refused(tmp_path):
    path = tmp_path / "fixed.json"
    remembered(path, {"seed": 0}, lambda: {})
    with pytest.raises(CheckpointError, match="another output folder"):
        remembered(path, {"seed": 1}, lambda: {})


class Stop(Exception):
    pass


def trained(path, epochs, stop_before=None, best=None, config=None):
    """Train on noise drawn from the order; some epochs are better than others."""
    torch.manual_seed(0)
    net, order = nn.Linear(3, 1), torch.Generator().manual_seed(7)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.1)
    training = Resumable(path, net, optimizer, order, config or {"seed": 7}, best)
    for epoch in training.epochs(epochs):
        if epoch == stop_before:
            raise Stop
        optimizer.zero_grad()
        loss = net(torch.randn(4, 3, generator=order)).pow(2).mean()
        loss.backward()
        optimizer.step()
        score = (0.3, 0.8, 0.5, 0.8, 0.6)[epoch]
        training.history.append({"loss": float(loss.detach()), "validation": score})
    return net, training


def test_an_interrupted_training_ends_as_an_uninterrupted_one(tmp_path):
    whole, straight = trained(tmp_path / "whole", 5)
    for stop in (0, 2, 4):
        with pytest.raises(Stop):
            trained(tmp_path / "pieces", 5, stop_before=stop)
    pieces, resumed = trained(tmp_path / "pieces", 5)
    assert torch.equal(whole.weight, pieces.weight)
    assert [r["loss"] for r in straight.history] == [r["loss"] for r in resumed.history]
    assert all(record["cpu_s"] >= 0.0 for record in resumed.history)


def test_a_finished_training_runs_no_epoch_again(tmp_path):
    net, training = trained(tmp_path / "run", 3)
    again, resumed = trained(tmp_path / "run", 3, stop_before=3)
    assert torch.equal(net.weight, again.weight) and resumed.history == training.history


def test_the_best_epoch_comes_back_and_the_first_of_equals_wins(tmp_path):
    second, _ = trained(tmp_path / "two", 2)
    with pytest.raises(Stop):
        trained(tmp_path / "run", 5, best="validation", stop_before=2)
    net, training = trained(tmp_path / "run", 5, best="validation")
    assert not torch.equal(net.weight, second.weight)
    training.restore_best()
    assert torch.equal(net.weight, second.weight)


def test_a_state_of_other_settings_is_refused(tmp_path):
    trained(tmp_path / "run", 1)
    with pytest.raises(CheckpointError, match="same settings"):
        trained(tmp_path / "run", 2, config={"seed": 8})


def test_an_epoch_without_a_record_is_an_error(tmp_path):
    net = nn.Linear(1, 1)
    training = Resumable(tmp_path / "run", net, torch.optim.SGD(net.parameters(), 0.1), torch.Generator(), {})
    with pytest.raises(TrainingError, match="append a record"):
        for _ in training.epochs(2):
            pass


def parser(**options):
    return command_line("Train.\n\n    as it stands", out="runs/mine", **options)


@pytest.mark.parametrize(("words", "seeds", "out"), [
    ([], 3, "runs/mine"),
    (["--full"], 10, "runs/mine_full"),
    (["--full", "--seeds", "2", "--out", "there"], 2, "there"),
])  # fmt: skip
def test_defaults_follow_the_configuration(tmp_path, monkeypatch, words, seeds, out):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    options = read_options(parser(full="the paper's size", seeds=(3, 10), epochs=True), words)
    assert (options.seeds, str(options.out), options.epochs) == (seeds, out, None)
    assert options.out.is_dir()


def test_the_folder_may_be_named_after_an_option(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = command_line("Train.", out="runs/mine_{task}")
    made.add_argument("--task", default="vowels")
    assert str(read_options(made, []).out) == "runs/mine_vowels"
    assert str(read_options(made, ["--task", "speech"]).out) == "runs/mine_speech"


@pytest.mark.parametrize(("words", "threads"), [([], [1]), (["--full"], [])])
def test_a_reduction_runs_on_one_thread(tmp_path, monkeypatch, words, threads):
    asked = []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    read_options(parser(full="the paper's size"), [*words, "--out", str(tmp_path)])
    assert asked == threads


@pytest.mark.parametrize(
    "words", [["--seeds", "0"], ["--epochs", "-1"], ["--seeds", "many"], ["--full"], ["--data", "."]]
)
def test_options_that_mean_nothing_are_refused(words, capsys):
    with pytest.raises(SystemExit) as caught:
        read_options(parser(epochs=True), words)
    assert caught.value.code == 2 and words[0] in capsys.readouterr().err


def test_help_shows_the_docstring_and_the_defaults(capsys):
    with pytest.raises(SystemExit):
        parser(full="the paper's size", seeds=(3, 10)).parse_args(["--help"])
    text = capsys.readouterr().out
    assert "    as it stands" in text and "with --full 10" in text and "runs/mine" in text and "--data" not in text


def test_without_data_a_script_says_what_it_needs_and_fails(tmp_path):
    made = parser(data="folder with recordings")
    out = ["--out", str(tmp_path)]
    assert data_folder(read_options(made, [*out, "--data", str(tmp_path)])) == tmp_path
    with pytest.raises(SystemExit, match="not run: needs folder with recordings.*--data"):
        data_folder(read_options(made, out))
    with pytest.raises(SystemExit, match="no such folder.*recordings"):
        data_folder(read_options(made, [*out, "--data", str(tmp_path / "nothing")]))


def test_a_record_says_what_made_it_and_can_be_read_by_people(tmp_path):
    path, data = record_path(tmp_path, Run(), "learned"), tmp_path / "recordings.bin"
    data.write_bytes(b"delay")
    remembered(path, Run(), lambda: {"test": 0.5, "curve": [0.25, 0.5]}, [data])
    record = json.loads(path.read_text())
    assert record["settings"] == {"lr": 0.1, "hidden": [8, 4], "dims": math.inf, "seed": 0}
    assert record["result"] == {"test": 0.5, "curve": [0.25, 0.5]}
    assert record["data"] == {"recordings.bin": hashlib.sha256(b"delay").hexdigest()}
    assert {"python", "torch", "delaykit", "delaykit-lab"} <= set(record["versions"])
    assert record["commit"] is None or re.fullmatch(r"[0-9a-f]{40}(-changed)?", record["commit"])
    assert record["cpu_s"] >= 0.0
    assert '"curve": [0.25,0.5]' in path.read_text()


def test_a_run_that_was_interrupted_says_its_own_process_time(tmp_path):
    path = record_path(tmp_path, {})
    remembered(path, {}, lambda: {"cpu_s": 123.45})
    assert json.loads(path.read_text())["cpu_s"] == 123.45
