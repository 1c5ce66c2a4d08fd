"""Tables of the pages on whole delays and on pruned delays: each cell is mean and deviation of the records."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from statistics import mean, stdev

import pytest

ROOT = Path(__file__).parents[4]
SEEDS = 3


def records(experiment):
    """Return the results of all seeds by task and settings that tell the rows apart."""
    found = defaultdict(list)
    for path in sorted((ROOT / "results" / "lab" / experiment).glob("*.json")):
        record = json.loads(path.read_text())
        assert not record["commit"].endswith("-changed"), path
        settings = record["settings"]
        task = "wave" if "wave" in settings["task"] else "speech"
        found[task, settings.get("policy", (settings.get("by"), settings.get("kept")))].append(record["result"])
    assert found and all(len(runs) == SEEDS for runs in found.values()), {k: len(v) for k, v in found.items()}
    return found


def rows(page):
    """Return the cells of the page's table rows that hold deviations."""
    lines = [line for line in (ROOT / page).read_text().splitlines() if line.startswith("|") and "+-" in line]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def told(values):
    return f"{100 * mean(values):.1f} +- {100 * stdev(values):.1f}"


def test_what_whole_delays_cost():
    found, page = records("whole_steps"), rows("docs/howto/train_whole_delays.md")
    assert len(page) == len({policy for _, policy in found}) == 8
    for policy, *cells in page:
        for task, (real, whole, lost) in zip(("wave", "speech"), (cells[:3], cells[3:]), strict=True):
            runs, first = found[task, policy], found[task, "rounded afterwards"]
            assert (real, whole) == (told([r["real"] for r in runs]), told([r["whole"] for r in runs])), (task, policy)
            below = 100 * (mean(r["real"] for r in first) - mean(r["whole"] for r in runs))
            assert float(lost) == pytest.approx(below, abs=0.0501), (task, policy)


def test_how_many_delays_are_needed():
    found, page = records("delay_pruning"), rows("plugins/sparsify/README.md")
    assert len(page) == 6
    for kept, *cells in page:
        for k, (task, by) in enumerate((t, b) for t in ("wave", "speech") for b in ("use", "random")):
            key = task, ("use" if float(kept) == 1 else by, float(kept))
            assert cells[k] == told([r["test"] for r in found[key]]), key
