"""The comparison of ways to prune: the paper's size, and a tiny run that leaves records."""

from __future__ import annotations

import json
import sys
from types import ModuleType

import pytest

pytest.importorskip("delaykit_lab", reason="needs the plugin delaykit-lab")


@pytest.fixture
def speech(script) -> ModuleType:
    return script("speech")


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
