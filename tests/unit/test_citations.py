"""Every component and every plugin can be cited as BibTeX."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import delaykit as dk
from delaykit.names import OFFICIAL
from delaykit.plugins.registry import loader

ENTRY = re.compile(r"@misc\{[\w-]+,\n(  \w+ = \{.+\},?\n)+\}")


def is_entries(text: str) -> bool:
    return all(ENTRY.fullmatch(entry) and entry.count("{") == entry.count("}") for entry in text.split("\n\n"))


@pytest.mark.parametrize("record", dk.components(), ids=lambda record: f"{record.kind}-{record.name}")
def test_a_component_has_an_entry(record) -> None:
    text = dk.citation(record, style="bibtex")
    assert is_entries(text) and "\n  title = {{" in text


@pytest.mark.parametrize("name", ["delaykit", *sorted(OFFICIAL)])
def test_a_plugin_has_an_entry(name) -> None:
    if name in OFFICIAL and name not in {status.name for status in loader().statuses}:
        pytest.skip(f"{name} is not installed")
    assert is_entries(dk.citation(name, style="bibtex"))


@pytest.mark.parametrize(("library", "author"), [("snntorch", "Eshraghian"), ("norse", "Pehle")])
def test_an_adapter_cites_its_library(library, author) -> None:
    assert author in dk.citation(library) and author in dk.citation(library, style="bibtex")


def test_two_papers_of_a_plugin_are_two_entries() -> None:
    pytest.importorskip("delaykit_delrec", reason="needs the plugin delaykit-delrec")
    text = dk.citation("delrec", style="bibtex")
    if "dcls" in {record.name for record in dk.components("delay")}:
        assert "2509.24852" in text


def test_an_unknown_style_is_refused() -> None:
    with pytest.raises(dk.ConfigError, match="'text' or 'bibtex'"):
        dk.citation("free", style="apa")


def test_the_papers_of_the_plugins_stand_in_the_citation_file() -> None:
    file = Path(__file__).parents[2] / "CITATION.cff"
    if not file.exists():
        pytest.skip("no checkout")
    listed = set(re.findall(r"arXiv:(\d{4}\.\d{5})", file.read_text()))
    methods = ("delrec", "hetsyn", "motifs", "sparsify", "spatial", "timing")
    loaded = [name for name in methods if name in {status.name for status in loader().statuses}]
    cited = {name: set(re.findall(r"arXiv (\d{4}\.\d{5})", dk.citation(name))) for name in loaded}
    assert all(cited.values()), cited
    assert set().union(*cited.values()) <= listed
