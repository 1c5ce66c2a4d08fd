"""Every component and every plugin can be cited as BibTeX."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import delaykit as dk
from delaykit.names import OFFICIAL
from delaykit.plugins.registry import loader

ENTRY = re.compile(r"@(misc|article|inproceedings)\{[\w-]+,\n(  \w+ = \{.+\},?\n)+\}")


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


@pytest.mark.parametrize("named", ["FreeDelay", "TimeConstants", "freedelay"])
def test_the_class_names_of_components_are_taken(named) -> None:
    assert dk.citation(named) == dk.citation({"f": "free", "t": "time_constants"}[named[0].lower()]) != ""


@pytest.mark.parametrize(
    ("named", "author"),
    [("DynamicSparsity", "Landsmeer"), ("MultiSpikeLIF", "Yamamoto"), ("TimingNet", "Yamamoto"), ("HetSynLIF", "Deng")],
)
def test_the_public_classes_of_a_plugin_cite_it(named, author) -> None:
    plugin = next(plugin for plugin, (_, public) in OFFICIAL.items() if named in public)
    pytest.importorskip(f"delaykit_{plugin}", reason=f"needs the plugin delaykit-{plugin}")
    assert author in dk.citation(named)


def test_a_class_whose_component_has_no_paper_is_delaykits_own() -> None:
    pytest.importorskip("delaykit_sparsify", reason="needs the plugin delaykit-sparsify")
    for named in ("DelayPruning", "delay_pruning"):
        assert dk.citation(named) == "" and "The delaykit developers" in dk.citation(named, style="bibtex")


def test_what_is_expected_names_all_that_is_answered_and_nothing_to_install() -> None:
    loaded = [status.name for status in loader().statuses if status.name in OFFICIAL and status.state == "ok"]
    with pytest.raises(dk.UnknownNameError) as told:
        dk.citation("nosuchthing")
    expected = str(told.value).partition("expected one of ")[2].partition(". To go on")[0].split(", ")
    assert {"delaykit", "free", *loaded} <= set(expected)
    for name in expected:
        assert dk.citation(name, style="bibtex")
    for name in loaded:
        with pytest.raises(dk.UnknownNameError) as told:
            dk.resolve("adapter", OFFICIAL[name][1][0])
        assert "pip install" not in str(told.value)


def test_the_package_is_cited_without_a_name_as_its_file_says() -> None:
    file = Path(__file__).parents[2] / "CITATION.cff"
    if not file.exists():
        pytest.skip("no checkout")
    cff = file.read_text()
    title, version = re.search(r'^title: "(.+)"', cff, re.M)[1], re.search(r"^version: (.+)", cff, re.M)[1]
    entry = dk.citation(style="bibtex")
    assert title in dk.citation() == dk.citation("delaykit")
    assert f"title = {{{{{title}}}}}" in entry and f"version = {{{version}}}" in entry
    assert "author = {{The delaykit developers}}" in entry
    assert entry == dk.citation("delaykit", style="bibtex")


def test_entries_are_of_the_kind_of_their_paper() -> None:
    free, constants = (dk.citation(name, style="bibtex") for name in ("free", "time_constants"))
    assert free.startswith("@inproceedings{free,") and "booktitle = {ICLR}" in free
    assert constants.startswith("@article{time_constants,")
    for field in ("journal = {Nature Communications}", "volume = {12}", "pages = {5791}"):
        assert field in constants


def test_authors_have_the_names_of_the_citation_file() -> None:
    file = Path(__file__).parents[2] / "CITATION.cff"
    if not file.exists():
        pytest.skip("no checkout")
    for block in file.read_text().split("  - type: article")[1:]:
        number = re.search(r"arXiv:(\S+)\"", block)[1]
        record = next((r for r in dk.components() if number in r.paper), None)
        if record is not None:
            people = zip(re.findall(r"given-names: (.+)", block), re.findall(r"family-names: (.+)", block), strict=True)
            wanted = " and ".join(" ".join(names) for names in people)
            assert f"author = {{{wanted}}}" in dk.citation(record, style="bibtex")


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
