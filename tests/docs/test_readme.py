"""README: every Python block runs as printed, and every link and picture it names is there."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_python_block_runs_as_printed(number: int) -> None:
    block = BLOCKS[number]
    namespace: dict[str, object] = {}
    exec(compile(block, f"README block {number}", "exec"), namespace)
    assert namespace["output"].shape[-1] in (9, 64)  # type: ignore[attr-defined]
    if number < 2:
        assert len(block.strip().splitlines()) <= 19


def test_links_lead_somewhere() -> None:
    links = [link for link in re.findall(r"\]\(([^)]+)\)", TEXT) if "://" not in link]
    missing = [link for link in links if not (ROOT / link).exists()]
    assert links and not missing


def test_measured_numbers_stand_in_the_tables_that_are_written_from_records() -> None:
    """What departs from the records of a plugin departs from its README's tables, which another test compares."""
    section = TEXT.partition("## Measured")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("|") and "](plugins/" in line]
    assert len(rows) >= 4
    for row in rows:
        (link,) = re.findall(r"\]\((plugins/[^)]+)\)", row)
        table = (ROOT / link).read_text().partition("<!-- results: begin -->")[2].partition("<!-- results: end -->")[0]
        numbers = re.findall(r"\d+\.\d+", row)
        assert not [number for number in numbers if number not in table], row


def test_no_other_accuracy_stands_on_the_front_page() -> None:
    """A number without a record does not come back: per cent with a decimal only where a test compares it."""
    rest = re.sub(r"<!-- results: begin -->.*<!-- results: end -->", "", TEXT, flags=re.DOTALL)
    head, _, tail = rest.partition("## Measured")
    text = head + tail.partition("\n## ")[2]
    assert re.findall(r"\d+\.\d+ (?:± \d+\.\d+ )?%|\d\.\d+x", text) == []


@pytest.mark.parametrize("work", ["net", "recurrent", "depth 64"])
def test_what_delays_cost_in_words_is_what_the_record_says(work: str) -> None:
    assert "the fused network takes less with a delay for each neuron; with one for each synapse it takes less" in TEXT
    runs = json.loads((ROOT / "results" / "benchmarks" / "peers.json").read_text())["result"]["runs"]
    ms = {(run["peer"], row["way"]): row["ms"] for run in runs if run["work"] == work for row in run["rows"]}
    bare = ms["snntorch", "loop"]
    assert ms["delaykit", "axonal, loop"] > bare and ms["delaykit", "synaptic, loop"] > bare
    assert ms["delaykit", "axonal, fused"] < bare
    assert (ms["delaykit", "synaptic, fused"] < 0.9 * bare) == work.startswith("depth")  # long, and four samples


@pytest.mark.parametrize("path", sorted(ROOT.glob("plugins/*/README.md")), ids=lambda path: path.parent.name)
def test_a_mean_with_its_error_in_a_sentence_stands_in_a_table_from_records(path: Path) -> None:
    """Sentences are written by hand: they fall behind when a record gets more seeds."""
    parts = re.split(r"<!-- results: (?:begin|end) -->", path.read_text())
    everything = (ROOT / "results" / "README.md").read_text().partition("<!-- results: begin -->")[2]
    tables = "".join(parts[1::2]) + everything
    sentences = "\n".join(line for line in "".join(parts[::2]).splitlines() if not line.startswith("|"))
    said = re.findall(r"\d*\.\d+ ± \d*\.\d+", sentences)
    assert [mean for mean in said if not re.search(rf"(?<![\d.]){re.escape(mean)}(?!\d)", tables)] == []


@pytest.mark.parametrize("page", ["README.md", "docs/index.md"])
def test_the_first_wrapping_that_one_sees_is_told_of_delays_beyond_its_sequence(page):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    wrapping = [block for block in blocks if "dk.wrap_(" in block]
    assert wrapping
    for block in wrapping:
        with pytest.warns(UserWarning, match="as long as the example, 50 steps"):
            exec(block.replace("max_delay=25", "max_delay=500"), {})
