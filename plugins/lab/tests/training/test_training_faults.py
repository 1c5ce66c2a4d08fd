"""A training that is killed anywhere, or finds the disk full at any call, loses nothing that was finished."""

from __future__ import annotations

import json
import random

import pytest
import torch
from torch import nn

import delaykit as dk
from delaykit.testing.faults import FullDisk, count_calls, flipped, how_many, killed_at
from delaykit_lab import FitConfig, Frames, Job, Splits, fit, train
from delaykit_lab.records.finished import remembered
from delaykit_lab.training.checkpoint import _read

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
    net = dk.wrap_(Delayed(), {"fc": dk.At(dk.FreeDelay("axonal", max_delay=3), reset="manual", time_dim=0)})
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


@pytest.mark.parametrize("flips", [100, pytest.param(2000, marks=pytest.mark.slow)])
def test_a_changed_byte_of_a_state_is_refused_or_changes_nothing(tmp_path, flips):
    path = tmp_path / "run.safetensors"
    run(path)
    header, tensors = _read(path)
    refused = 0
    for place, content in flipped(path.read_bytes(), flips):
        path.write_bytes(content)
        try:
            found = _read(path)
        except dk.CheckpointError as error:
            assert error.found and error.expected and error.fix
            refused += 1
        else:
            assert found[0] == header and all(torch.equal(v, found[1][k]) for k, v in tensors.items()), place
    assert refused > 0.9 * flips


@pytest.mark.parametrize("flips", [200, pytest.param(2000, marks=pytest.mark.slow)])
def test_a_changed_byte_of_a_record_is_refused_or_changes_nothing(tmp_path, flips):
    path, settings = tmp_path / "record.json", {"lr": 0.125, "seed": 3}
    result = {"test": 0.8125, "delays": [1.5, 2.25], "name": "wave"}
    remembered(path, settings, lambda: result)

    def never():
        raise AssertionError("run again")

    for place, content in flipped(path.read_bytes(), flips):
        path.write_bytes(content)
        try:
            assert remembered(path, settings, never) == result, place
        except dk.CheckpointError as error:
            assert error.found and error.expected and error.fix
