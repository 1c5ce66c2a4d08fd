"""The list of rows and their tests in README.md names tests that are there."""

from __future__ import annotations

import re
from pathlib import Path

HERE = Path(__file__).parent
TEXT = (HERE / "README.md").read_text()
NAMED = re.findall(r"`([\w/]+)::(test_\w+)`", TEXT)


def test_every_named_test_is_there():
    top = HERE.parent.parent
    missing = []
    for file, name in NAMED:
        path = (top if file.startswith(("plugins/", "tests/")) else HERE) / f"{file}.py"
        if path.is_file():  # plugins may be tested without their neighbours
            missing += [] if f"\ndef {name}(" in path.read_text() else [f"{file}::{name}"]
        elif not file.startswith("plugins/"):
            missing.append(file)
    assert not missing


def test_every_row_names_a_test():
    rows = [line for line in TEXT.splitlines() if line.startswith("|") and "---" not in line]
    assert len(rows) > 30
    bare = [row for row in rows if "::" not in row and not row.startswith(("| row |", "| what |"))]
    assert not bare
