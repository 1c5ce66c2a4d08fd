"""What a finished run cannot be remembered by is told before the run, and never raw."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from delaykit.testing.messages import check_told
from delaykit_lab import record_path, remembered


def never():
    raise AssertionError("the run began")


BEFORE = {
    "unwritable": lambda folder: remembered("/dev/null/a.json", {}, never),
    "a folder in its place": lambda folder: remembered(folder, {}, never),
    "data missing": lambda folder: remembered(folder / "a.json", {}, never, [folder / "gone"]),
    "data a folder": lambda folder: remembered(folder / "a.json", {}, never, [folder]),
    "data a path": lambda folder: remembered(folder / "a.json", {}, never, folder / "a"),
    "data a number": lambda folder: remembered(folder / "a.json", {}, never, [3]),
    "settings a set": lambda folder: remembered(folder / "a.json", {"a": {1}}, never),
    "settings a path": lambda folder: remembered(folder / "a.json", {"a": folder}, never),
    "settings None": lambda folder: remembered(folder / "a.json", None, never),
    "settings a list": lambda folder: record_path(folder, [1]),
    "path None": lambda folder: remembered(None, {}, never),
    "path no name": lambda folder: remembered("a\0b", {}, never),
    "run": lambda folder: remembered(folder / "a.json", {}, 3),
    "result a set": lambda folder: remembered(folder / "a.json", {}, lambda: {"a": {1}}),
    "result a list": lambda folder: remembered(folder / "a.json", {}, lambda: [1]),
    "result None": lambda folder: remembered(folder / "a.json", {}, lambda: None),
    "result long": lambda folder: remembered(folder / "a.json", {}, lambda: {"a": 10**5000}),
    "result cpu_s": lambda folder: remembered(folder / "a.json", {}, lambda: {"cpu_s": None}),
}


@pytest.mark.parametrize("case", BEFORE)
def test_what_cannot_be_remembered_is_told_in_full(case, tmp_path):
    check_told(lambda: BEFORE[case](tmp_path))
    assert not list(tmp_path.glob("*.json"))


def test_numbers_of_numpy_and_torch_are_remembered_as_plain_ones(tmp_path):
    made = {"a": np.float32(0.5), "b": torch.tensor([1.0, 2.0]), "c": np.int64(3), 4: (1, None)}
    settings, path = {"lr": np.float64(0.1)}, str(tmp_path / "a.json")
    for run in (lambda: made, never):
        assert remembered(path, settings, run) == {"a": 0.5, "b": [1.0, 2.0], "c": 3, "4": [1, None]}
    assert record_path(str(tmp_path), settings) == record_path(Path(tmp_path), {"lr": 0.1})
