"""How a script ends that stops, refuses or writes nothing: in a sentence, and without an empty folder."""

from __future__ import annotations

import subprocess
import sys

import pytest

START = """
import sys
from delaykit import DataError
from delaykit_lab import command_line, read_options

options = read_options(command_line("Do.", out="runs/mine"))
(options.out / "tuning").mkdir(exist_ok=True)
"""
COMPILED = """
try:
    raise KeyboardInterrupt
except KeyboardInterrupt:
    raise SystemError("returned a result with an exception set")
"""
REFUSED = 'raise DataError("a.h5", "half a file", "a whole one", "fetch it again")'


def ended(folder, body: str, out: str = "new/a/b") -> subprocess.CompletedProcess:
    words = [sys.executable, "-c", START + body, "--out", str(folder / out)]
    return subprocess.run(words, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("body", "said"), [(REFUSED, "Error: a.h5: found half a file"), ("raise KeyboardInterrupt", "stopped; what is"),
                       (COMPILED, "stopped; what is")],
)  # fmt: skip
def test_it_ends_in_a_sentence_and_leaves_no_empty_folder(tmp_path, body, said) -> None:
    found = ended(tmp_path, body)
    assert found.returncode != 0 and found.stderr.startswith(said) and "Traceback" not in found.stderr
    assert not list(tmp_path.iterdir())


def test_a_fault_has_its_traceback_and_what_was_written_or_was_there_stays(tmp_path) -> None:
    (tmp_path / "there").mkdir()
    found = ended(tmp_path, "(options.out / 'a.txt').touch(); raise RuntimeError('odd')")
    assert "Traceback" in found.stderr and (tmp_path / "new" / "a" / "b" / "a.txt").exists()
    assert ended(tmp_path, REFUSED, "there").returncode == 1 and (tmp_path / "there").is_dir()
