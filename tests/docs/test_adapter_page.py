"""The page on adapters has a row for every public name of the adapters' package, and none for another."""

from __future__ import annotations

import re
from pathlib import Path

from delaykit import adapters

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "write_an_adapter.md"


def test_every_public_name_stands_in_the_table_once() -> None:
    _, _, section = PAGE.read_text(encoding="utf-8").partition("## What is in `delaykit.adapters`")
    rows = [line.split("|") for line in section.partition("\n## ")[0].splitlines() if line.startswith("| `")]
    assert sorted(name for row in rows for name in re.findall(r"`(\w+)`", row[1])) == sorted(adapters.__all__)
    assert all(row[2].strip() for row in rows)
