"""The comparison of ways to prune: the paper's size, and a tiny run that leaves records."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

pytest.importorskip("delaykit_lab")


@pytest.fixture
def speech() -> ModuleType:
    path = Path(__file__).parents[1] / "reproduce" / "speech.py"
    spec = importlib.util.spec_from_file_location("delaykit_sparsify_reproduce_speech", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def recordings(tmp_path) -> Path:
    """Write a train and a test file in SHD's layout: two classes, low units or high ones."""
    h5py = pytest.importorskip("h5py")
    folder, random = tmp_path / "recordings", np.random.default_rng(0)
    folder.mkdir()
    for part, count in (("train", 24), ("test", 8)):
        with h5py.File(folder / f"tiny_{part}.h5", "w") as file:
            labels = np.arange(count) % 2
            times = file.create_dataset("spikes/times", (count,), h5py.vlen_dtype("float16"))
            units = file.create_dataset("spikes/units", (count,), h5py.vlen_dtype("uint16"))
            for k, label in enumerate(labels):
                times[k] = np.sort(random.random(200)).astype("float16")
                units[k] = (random.integers(0, 350, 200) + 350 * label).astype("uint16")
            file["labels"] = labels.astype("uint16")
    return folder


def test_the_papers_size(speech) -> None:
    assert (speech.FULL["channels"], speech.FULL["hidden"], speech.FULL["epochs"]) == (700, 300, 100)
    assert speech.KEPT[0] == 0.01 and speech.KEPT[-1] == 1.0


def test_dynamic_and_static_pruning_leave_records(speech, recordings, tmp_path, monkeypatch, capsys) -> None:
    tiny = {**speech.REDUCED, "hidden": 10, "samples": None, "test": None, "epochs": 1, "batch": 8}
    monkeypatch.setattr(speech, "REDUCED", tiny)
    words = ["x", "--seeds", "1", "--delays", "axonal", "--kept", "0.2", "1.0", "--data", str(recordings)]
    monkeypatch.setattr(sys, "argv", [*words, "--out", str(tmp_path / "out")])
    speech.main()
    assert "axonal    kept   0.2 dynamic" in capsys.readouterr().out
    records = [json.loads(path.read_text()) for path in (tmp_path / "out").glob("*.json")]
    assert len(records) == 2 and all(set(one["data"]) == {"tiny_train.h5", "tiny_test.h5"} for one in records)
    keys = {key for one in records for key in one["result"]}
    assert {"axonal/dynamic/0.2/0", "axonal/dense/1.0/0", "axonal/static/0.2/0"} <= keys


def test_without_data_it_is_not_run(speech, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", ["x", "--out", str(tmp_path)])
    with pytest.raises(SystemExit, match="not run: needs"):
        speech.main()
