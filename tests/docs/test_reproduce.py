"""The scripts that reproduce results start, have one command line, and fail in words where their data are missing."""

from __future__ import annotations

import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("delaykit_lab", reason="the scripts use delaykit-lab")

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted(ROOT.glob("plugins/*/reproduce/*.py"))
NEEDS_DATA = [script for script in SCRIPTS if script.name == "speech.py"]


def name_of(script: Path) -> str:
    return str(script.relative_to(ROOT / "plugins"))


@pytest.fixture
def start(monkeypatch, tmp_path):
    """Run a script as the command line would, in a folder of its own."""

    def run(script: Path, *words: str) -> int:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [str(script), *words])
        monkeypatch.syspath_prepend(str(script.parent))
        with pytest.raises(SystemExit) as caught:
            runpy.run_path(str(script), run_name="__main__")
        return caught.value.code

    yield run
    for name in [name for name in sys.modules if name.partition(".")[0] == "common"]:  # each folder has its own
        del sys.modules[name]


def test_there_are_scripts():
    assert len(SCRIPTS) >= 10 and len(NEEDS_DATA) == 3


@pytest.mark.parametrize("script", SCRIPTS, ids=name_of)
def test_a_script_starts_and_has_the_common_options(script, start, capsys):
    assert start(script, "--help") == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "--seeds SEEDS" in text and f"(default: runs/{script.parts[-3]}_" in text


@pytest.mark.parametrize("script", NEEDS_DATA, ids=name_of)
def test_a_script_without_its_data_says_so_and_fails(script, start):
    assert re.match(r"not run: needs .*; pass --data FOLDER", str(start(script)))


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
@pytest.mark.parametrize(
    ("words", "command"),
    [
        (("PAPER=timing", "SCALE=full", "DATA=there"), "delaykit reproduce timing --scale full --data there"),
        (("PAPER=hetsyn",), "delaykit reproduce hetsyn --scale cpu"),
    ],
)
def test_make_reproduce_is_the_command(words, command):
    told = subprocess.run(["make", "-n", "reproduce", *words], cwd=ROOT, capture_output=True, text=True, check=True)
    assert any(line.strip().endswith(command) for line in told.stdout.splitlines()), told.stdout
