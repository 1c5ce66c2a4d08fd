"""Every question is a comparison that can be run, on a small part of its task."""

from __future__ import annotations

import hashlib
import json

import pytest
from click.testing import CliRunner

import delaykit as dk
from delaykit_lab.commands.compare import compare
from delaykit_lab.commands.compare import question as command
from delaykit_lab.comparison.questions import question, questions
from delaykit_lab.records.answers import answers
from delaykit_lab.training.config import make_task
from delaykit_lab.training.trainer import build


@pytest.mark.parametrize("name", ["Q1", "Q2", "Q3", "Q4", "Q5", "Q6"])
def test_every_row_of_a_question_can_be_built(name):
    comparison = question(name).comparison
    task = make_task(comparison.task, comparison.set)
    splits = task.splits(0)
    for row in comparison.rows():
        net = build(comparison.job(row, (4,), 0.01, 0), task, splits)
        assert net(splits.test.batch([0, 1])[0]).shape == (2, task.classes)
    assert len(comparison.rows()) >= 4 and "none" in comparison.methods


def test_the_factorial_of_q3_is_whole():
    rows = question("q3").comparison.rows()
    assert len({(row.recurrent, row.forward) for row in rows}) == 9


def test_unknown_questions_and_the_list():
    with pytest.raises(dk.UnknownNameError, match="one of Q1"):
        question("Q7")
    done = CliRunner().invoke(command, [])
    assert done.exit_code == 0 and all(asked.text in done.output for asked in questions().values())


def test_a_question_is_asked_of_a_small_part(tmp_path):
    words = ["Q2", "--set", "samples=64", "--set", "held=32", "--epochs", "1", "--seeds", "2", "--rates", "0.01",
             "--model", "snn:4", "--workers", "1", "--out", str(tmp_path / "q")]  # fmt: skip
    done = CliRunner().invoke(command, words)
    assert done.exit_code == 0, done.output
    assert "yours differs" in done.output and (tmp_path / "q" / "report.html").exists()
    record = json.loads((tmp_path / "q" / "Q2.json").read_text())
    assert record["result"] == json.loads((tmp_path / "q" / "results.json").read_text()) and record["cpu_s"] > 0
    (tmp_path / "results" / "questions").mkdir(parents=True)
    (tmp_path / "q" / "Q2.json").rename(tmp_path / "results" / "questions" / "Q2.json")
    page = answers(tmp_path)
    [found] = [d for d in record["result"]["findings"]["differences"] if d["against"] == "frozen-dcls"]
    assert f"{found['difference']:+.1f} ({found['low']:+.1f} to {found['high']:+.1f})" in page.splitlines()[-3]
    assert page.startswith("### Q2. Which tasks need")


def test_a_comparison_of_files_leaves_a_record_with_their_checksums(tmp_path, tonic_folder, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["--task", "spike-files", "--set", "path=.", "--set", "channels=70", "--set", "dt_ms=50", "--methods",
             "none,frozen-dcls", "--model", "snn:2", "--epochs", "1", "--seeds", "2", "--rates", "0.01", "--out", "r",
             "--workers", "1"]  # fmt: skip
    done = CliRunner().invoke(compare, words)
    assert done.exit_code == 0, done.output
    record = json.loads((tmp_path / "r" / "record.json").read_text())
    assert sorted(record["data"]) == ["shd_test.h5", "shd_train.h5"]
    assert record["data"]["shd_test.h5"] == hashlib.sha256((tonic_folder / "SHD/shd_test.h5").read_bytes()).hexdigest()
    assert record["settings"]["question"] is None and record["result"]["comparison"]["set"]["path"] == "."
