"""A training that is killed anywhere, or finds the disk full at any call, loses nothing that was finished."""

from __future__ import annotations

import json
import random

import pytest
import torch
from torch import nn

import delaykit as dk
from delaykit.testing.faults import FullDisk, count_calls, how_many, killed_at
from delaykit.testing.faults.damage import check_changed_bytes
from delaykit_lab import FitConfig, Frames, Job, Splits, fit, train
from delaykit_lab.records.finished import remembered
from delaykit_lab.training.checkpoint import _read, load_run, save_run
from delaykit_lab.training.log import Log

CONFIG = FitConfig(epochs=3, batch_size=4)


class Delayed(nn.Module):
    """Delays, then counts: everything that a checkpoint has to hold, and no more."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 2)

    def forward(self, spikes):
        return self.fc(spikes).square().sum(0)


def data(samples, seed):
    generator = torch.Generator().manual_seed(seed)
    spikes = (torch.rand(6, samples, 3, generator=generator) < 0.4).to(torch.uint8)
    return Frames(spikes, torch.arange(samples) % 2)


SPLITS = Splits(data(8, 0), data(4, 1), data(4, 2))


def run(path):
    """Train three epochs, or what is missing of them; return the records."""
    torch.manual_seed(0)
    net = dk.wrap_(Delayed(), {"fc": dk.At(dk.FreeDelay("axonal", max_delay=3), reset="root", time_dim=0)})
    optimizer = torch.optim.Adam(dk.param_groups(net, lr=0.01))
    dk.attach(optimizer, net)
    return fit(net, SPLITS, optimizer, CONFIG, checkpoint=path, advance=lambda p: dk.advance_(net, p))


@pytest.mark.slow
def test_trainings_killed_at_random_calls_twice_in_a_row_end_as_one_that_was_not(tmp_path):
    undisturbed, source, kills = run(tmp_path / "whole"), random.Random(0), 0
    calls = count_calls(lambda: run(tmp_path / "counted"), tmp_path)
    saves = count_calls(lambda: run(tmp_path / "saves"), tmp_path, "save_run")
    for turn in range(how_many(15, 125)):
        path = tmp_path / f"run{turn}"
        for attempt in range(2):
            within, most = ("save_run", saves) if (turn + attempt) % 2 else (None, calls)
            kills += killed_at(lambda path=path: run(path), source.randrange(1, most), within)
        assert run(path) == undisturbed
        path.unlink()
    assert kills > how_many(20, 180)


@pytest.mark.slow
def test_a_full_disk_at_any_call_of_a_checkpoint_loses_no_epoch(tmp_path):
    undisturbed = run(tmp_path / "whole")
    with pytest.MonkeyPatch.context() as patch:
        counting = FullDisk(patch)
        run(tmp_path / "counted")
    for stop in range(counting.calls):
        path = tmp_path / f"run{stop}"
        with pytest.MonkeyPatch.context() as patch:
            FullDisk(patch, stop)
            with pytest.raises(dk.CheckpointError, match="No space left"):
                run(path)
        assert run(path) == undisturbed
        path.unlink()
    assert counting.calls >= 3 * CONFIG.epochs


JOB = Job("moving-wave", "snn:8", ("free:axonal,max_delay=9",), {"samples": 64, "held": 64}, epochs=2)


def timeless(records):
    """Return what a training came to, without how long it took."""
    history = [[{k: v for k, v in e.items() if k not in ("seconds", "cpu_s")} for e in r["history"]] for r in records]
    return history, [record["test"] for record in records]


def is_sound(folder):
    """Everything in a folder can be read, and nothing unfinished lies about."""
    assert not [path for path in folder.rglob("*") if path.name.endswith((".part", ".new"))]
    for path in folder.glob("*.json"):
        json.loads(path.read_text())
    for line in (folder / "log.jsonl").read_text().splitlines():
        json.loads(line)


@pytest.mark.slow
def test_a_full_disk_at_any_call_of_a_training_loses_nothing_that_is_finished(tmp_path):
    undisturbed = timeless(train(JOB, tmp_path / "whole", device="cpu"))
    with pytest.MonkeyPatch.context() as patch:
        counting = FullDisk(patch)
        train(JOB, tmp_path / "counted", device="cpu")
    stops = random.Random(0).sample(range(counting.calls), how_many(6, counting.calls))
    for stop in sorted(stops):
        folder = tmp_path / f"run{stop}"
        with pytest.MonkeyPatch.context() as patch:
            FullDisk(patch, stop)
            with pytest.raises(dk.ConfigError, match=r"No space left.*pass --resume"):
                train(JOB, folder, device="cpu")
        assert timeless(train(JOB, folder, device="cpu", resume=True)) == undisturbed, stop
        is_sound(folder)


@pytest.mark.slow
def test_a_killed_training_leaves_a_log_that_can_be_read(tmp_path):
    undisturbed, source = timeless(train(JOB, tmp_path / "whole", device="cpu")), random.Random(1)
    calls = count_calls(lambda: train(JOB, tmp_path / "counted", device="cpu"), tmp_path, "_one")
    for turn in range(how_many(3, 20)):
        folder = tmp_path / f"run{turn}"
        for resume in (False, True):
            at = source.randrange(1, calls)
            killed_at(lambda f=folder, r=resume: train(JOB, f, device="cpu", resume=r), at, "_one")
        assert timeless(train(JOB, folder, device="cpu", resume=True)) == undisturbed
        is_sound(folder)


MANY = pytest.param(how_many(400, 2000), marks=pytest.mark.slow)


@pytest.mark.parametrize("flips", [100, MANY])
def test_a_changed_byte_of_a_state_is_refused_or_changes_nothing(tmp_path, flips):
    path = tmp_path / "run.safetensors"
    run(path)
    header, tensors = _read(path)

    def read(content):
        path.write_bytes(content)
        return _read(path)

    def judge(found):
        assert found[0] == header and found[1].keys() == tensors.keys()
        assert all(torch.equal(v, found[1][k]) for k, v in tensors.items())

    assert check_changed_bytes(path.read_bytes(), read, judge, flips) > 0.9 * flips


@pytest.mark.parametrize("flips", [200, MANY])
def test_a_changed_byte_of_a_record_is_refused_or_changes_nothing(tmp_path, flips):
    path, settings = tmp_path / "record.json", {"lr": 0.125, "seed": 3}
    result = {"test": 0.8125, "delays": [1.5, 2.25], "name": "wave"}
    remembered(path, settings, lambda: result)

    def read(content):
        path.write_bytes(content)
        return remembered(path, settings, lambda: pytest.fail("run again"))

    def judge(found):
        assert found == result

    assert check_changed_bytes(path.read_bytes(), read, judge, flips) > 0.5 * flips


def test_an_epoch_whose_line_was_lost_has_one_after_going_on(tmp_path):
    """A run that is stopped after the state of an epoch was written, and before its line was."""
    whole = timeless(train(JOB, tmp_path / "whole", device="cpu"))

    def stopped(self, seed, record):
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Log, "write", stopped)
        with pytest.raises(KeyboardInterrupt):
            train(JOB, tmp_path / "r", device="cpu")
    assert timeless(train(JOB, tmp_path / "r", device="cpu", resume=True)) == whole
    lines = [json.loads(line) for line in (tmp_path / "r" / "log.jsonl").read_text().splitlines()]
    assert sorted(line["epoch"] for line in lines) == [1, 2]
    train(JOB, tmp_path / "r", device="cpu", resume=True)
    assert len((tmp_path / "r" / "log.jsonl").read_text().splitlines()) == 2


def test_what_a_state_cannot_hold_is_refused_before_it_is_lost(tmp_path):
    net = Delayed()
    optimizer = torch.optim.LBFGS(net.parameters())  # keeps lists of its last steps
    optimizer.step(lambda: (net(torch.ones(2, 3)).sum() * 0.0).backward() or 0.0)
    optimizer.state[net.fc.weight]["old_dirs"] = [torch.ones(2)]
    with pytest.raises(dk.CheckpointError, match="old_dirs, a list.*such as Adam"):
        save_run(tmp_path / "run", net, optimizer, torch.Generator(), {}, [])
    assert list(tmp_path.iterdir()) == []


def test_numbers_of_an_optimizer_go_along(tmp_path):
    net, order = Delayed(), torch.Generator()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.5)
    optimizer.state[net.fc.weight] = {"momentum_buffer": torch.ones(2, 3), "count": 3, "sum": 0.1, "last": None}
    save_run(tmp_path / "run", net, optimizer, order, {}, [])
    other = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.5)
    load_run(tmp_path / "run", net, other, order, {})
    found = other.state[net.fc.weight]
    assert found.pop("momentum_buffer").tolist() == [[1.0] * 3] * 2 and found == {"count": 3, "sum": 0.1, "last": None}


class Full:
    """TensorBoard's file on a full disk."""

    def __init__(self, file):
        self.file = file

    def write(self, content):
        raise OSError(28, "No space left on device")

    def flush(self):
        raise AssertionError("nothing to flush")


def test_tensorboard_s_full_disk_is_one_sentence_and_training_goes_on(tmp_path, monkeypatch):
    writer = pytest.importorskip("tensorboard.summary.writer.record_writer", reason="TensorBoard is not installed")
    real, made = writer.RecordWriter, []

    def opened(file):
        made.append(file)
        return real(file) if len(made) == 1 else real(Full(file))

    monkeypatch.setattr(writer, "RecordWriter", opened)
    sound = train(JOB, tmp_path / "sound", device="cpu")
    with pytest.warns(UserWarning, match=r"No space left on device.*log\.jsonl has all") as told:
        full = train(JOB, tmp_path / "full", device="cpu")
    assert len([one for one in told if "TensorBoard" in str(one.message)]) == 1
    assert timeless(full) == timeless(sound) and len((tmp_path / "full" / "log.jsonl").read_text().splitlines()) == 2
    [file] = (tmp_path / "sound" / "tensorboard").iterdir()
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(file))
    events.Reload()
    [losses] = [events.Scalars(tag) for tag in events.Tags()["scalars"] if tag.endswith("/train_loss")]
    assert [(one.step, one.value) for one in losses] == [
        (epoch["epoch"], pytest.approx(epoch["train_loss"])) for epoch in sound[0]["history"]
    ]


def test_a_file_where_tensorboard_s_folder_would_be_is_one_sentence(tmp_path):
    pytest.importorskip("tensorboard", reason="TensorBoard is not installed")
    (tmp_path / "tensorboard").write_text("")
    with pytest.warns(UserWarning, match="cannot be written.*log.jsonl has all"), Log(tmp_path, True) as log:
        log.write(0, {"epoch": 1, "train_loss": 0.5})
    assert (tmp_path / "log.jsonl").read_text() == '{"seed": 0, "epoch": 1, "train_loss": 0.5}\n'
