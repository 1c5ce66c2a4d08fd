"""The page of benchmarks says what the record says."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]


def test_the_page_is_the_record(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(TOP / "benchmarks" / "peers"))
    import run

    for name in ("run", "work"):
        monkeypatch.delitem(sys.modules, name)
    record = json.loads(run.RECORD.read_text())
    assert run.PAGE.read_text() == run.page(record)
    assert not any("failed" in one for one in record["result"]["runs"])
    rows = [(one["work"], row) for one in record["result"]["runs"] for row in one["rows"]]
    assert rows and all(("ms" in row) == (row["differ"] <= 1e-3) for _, row in rows)
    assert all("ms" in row for work, row in rows if work in ("net", "recurrent") or work.startswith("depth"))
