"""README: every Python block runs as printed, and every link and picture it names is there."""

from __future__ import annotations

import json
import re
from math import inf
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


def test_what_delays_cost_in_words_is_what_the_record_says() -> None:
    assert (
        "takes less with a delay for each neuron, but for 256 samples at once; with one for each synapse it\n" in TEXT
    )
    assert (
        "takes less in small layers, with few samples and over long sequences, and longer elsewhere, in layers" in TEXT
    )
    runs = json.loads((ROOT / "results" / "benchmarks" / "peers.json").read_text())["result"]["runs"]
    ms = {(run["work"], run["peer"], row["way"]): row.get("ms") for run in runs for row in run["rows"]}
    bare = {work: took for (work, peer, way), took in ms.items() if (peer, way) == ("snntorch", "loop") and took}

    def less(way: str, bound: float = 1.0) -> set[str]:
        return {work for work, took in bare.items() if (ms.get((work, "delaykit", way)) or inf) < bound * took}

    assert len(bare) >= 14 and not less("axonal, loop") | less("synaptic, loop")
    assert less("axonal, fused") == set(bare) - {"batch 256"}
    depths = {work for work in bare if work.startswith("depth")}
    assert less("synaptic, fused", 0.9) == depths | {"long", "neurons 64", "batch 1", "batch 8"}
    assert 3.5 < ms["neurons 1024", "delaykit", "synaptic, fused"] / bare["neurons 1024"] < 4.5


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
