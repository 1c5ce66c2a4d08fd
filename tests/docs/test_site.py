"""The site: its pages are there, every tutorial is listed, and names in signatures lead to pages that are listed."""

from __future__ import annotations

import dataclasses
import json
import pkgutil
import re
import runpy
import zlib
from pathlib import Path

import pytest

import delaykit as dk

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
KINDS = ("delay", "heterogeneity", "pruning")  # of components that connections are given
NOTEBOOKS = sorted(ROOT.glob("tutorials/*.ipynb"))
PAGES = [
    "howto/which_method", "howto/steps_and_milliseconds", "howto/troubleshooting", "howto/save_resume_finetune",
    "howto/lightning_and_accelerate", "howto/gpu", "howto/migrate", "howto/compare_methods", "explanation/misprints",
    "reference/benchmarks", "reference/plotting", "reference/testing",
]  # fmt: skip


@pytest.mark.parametrize("page", PAGES)
def test_a_page_that_is_promised_is_there_and_has_a_title(page: str) -> None:
    assert re.match(r"# \S", (DOCS / f"{page}.md").read_text())


def test_every_page_is_in_the_contents() -> None:
    listed = re.findall(r"^(\w+)/\*$", (DOCS / "index.md").read_text(), flags=re.MULTILINE)
    copied = {"tutorials", "plugins"}  # written by docs/pages.py
    assert {path.parent.name for path in DOCS.glob("*/*.md")} - copied <= set(listed)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem[:2])
def test_a_tutorial_is_on_the_front_page_and_has_a_title_and_a_picture(notebook: Path) -> None:
    assert f"](tutorials/{notebook.name})" in (ROOT / "README.md").read_text()
    cells = json.loads(notebook.read_text())["cells"]
    assert "".join(cells[0]["source"]).startswith("# ")
    assert any("image/png" in output.get("data", {}) for cell in cells for output in cell.get("outputs", []))


def test_links_lead_somewhere() -> None:
    """Links of pages and of READMEs to files of this tree, as a forge follows them; the site's lead to its copies."""
    missing = []
    pages = [path for folder in ("howto", "explanation", "reference") for path in DOCS.glob(f"{folder}/*.md")]
    pages += [DOCS / "index.md", *ROOT.glob("*.md"), *ROOT.glob("plugins/*/*.md"), *ROOT.glob("[br]*/README.md")]
    assert len(pages) > 50
    for page in pages:
        text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
        for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
            target = page.parent / link
            missing += [] if "://" in link or target.exists() else [f"{page.relative_to(ROOT)}: {link}"]
    assert missing == []


def test_links_through_the_tree_lead_to_the_copies_of_the_site(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(DOCS))
    pages = runpy.run_path(str(DOCS / "pages.py"))
    (notebook,) = ROOT.glob("tutorials/09_*.ipynb")
    text = f"[a](../../tutorials/{notebook.name}) [b](../../benchmarks/README.md#x) [c](../index.md) `[d](e)`"
    found = pages["pointed"](text, DOCS / "howto")
    assert found == f"[a](../tutorials/{notebook.name}) [b](../plugins/benchmarks.md) [c](../index.md) `[d](e)`"
    assert pages["pointed"]("[a](../CHANGELOG.md)", DOCS) == "[a](plugins/changelog.md)"


def test_the_listed_names_of_other_projects_are_an_inventory(tmp_path: Path) -> None:
    mapping = runpy.run_path(str(DOCS / "outside.py"))["mapping"](tmp_path)
    found = {}
    for name, (site, file) in mapping.items():
        head, lines = re.fullmatch(rb"((?:#[^\n]*\n){4})(.*)", Path(file).read_bytes(), flags=re.DOTALL).groups()
        assert head.startswith(b"# Sphinx inventory version 2\n# Project: " + name.encode()) and b"zlib" in head
        for line in zlib.decompress(lines).decode().splitlines():
            known, page = re.fullmatch(r"(\S+) py:class 1 (\S+#\S+) -", line).groups()
            found[known] = f"{site}/{page}"
    assert found["torch.Tensor"] == found["Tensor"] == "https://docs.pytorch.org/docs/stable/tensors.html#torch.Tensor"
    assert found["Path"] == found["pathlib.Path"]


def test_notebooks_show_no_paths_of_the_machine_that_ran_them() -> None:
    notebooks = sorted((ROOT / "tutorials").glob("*.ipynb"))
    assert len(notebooks) > 10
    assert [path.name for path in notebooks if "site-packages" in path.read_text()] == []


def test_a_component_is_shown_with_its_fields() -> None:
    show = runpy.run_path(str(DOCS / "fields.py"))["show"]
    configs = [pkgutil.resolve_name(record.config) for record in dk.components() if record.kind in KINDS]
    assert len(configs) > 5
    for config in configs:
        text, returned = show(None, "class", config.__name__, config, None, None, None)
        assert returned is None and "*values" not in text and "**" not in text
        assert all(f"{field.name}: " in text for field in dataclasses.fields(config) if field.init)
    assert show(None, "function", "wrap", dk.wrap, None, None, None) is None
    assert show(None, "class", "Plan", dk.Plan, None, None, None) is None
