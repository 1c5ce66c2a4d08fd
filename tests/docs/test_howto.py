"""Pages of the site: the Python blocks run as printed, one after the other; no page with one is left out."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
HOWTO = sorted((ROOT / "docs" / "howto").glob("*.md"))
OTHERS = [ROOT / "docs" / "index.md", *sorted(ROOT.glob("docs/explanation/*.md")), *ROOT.glob("docs/reference/*.md")]
PAGES = HOWTO + [page for page in OTHERS if BLOCK.search(page.read_text())]

pytest.importorskip("snntorch", reason="the pages wrap snntorch models")
pytest.importorskip("delaykit_spatial", reason="the pages show several plugins")
pytest.importorskip("delaykit_delrec", reason="the pages show several plugins")


@pytest.mark.filterwarnings("error::UserWarning")  # nobody copies what warns
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_blocks_of_a_page_run(page, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where a page writes a file
    module = types.ModuleType(page.stem)  # dataclasses look for the module that they stand in
    monkeypatch.setitem(sys.modules, page.stem, module)
    namespace = vars(module)
    blocks = BLOCK.findall(page.read_text())
    for number, block in enumerate(blocks):
        exec(compile(block, f"{page.name} block {number}", "exec"), namespace)
    assert blocks
    said = [line.split() for line in capsys.readouterr().out.splitlines()]
    if page.stem == "export_to_hardware":
        assert [line[:1] + line[2:] for line in said if "differ" in line][0][0] == "0"
    if page.stem == "train_whole_delays":
        assert said[0][0] == "none" and float(said[0][1]) > 0.0 and said[1] == ["straight-through", "0.0"]
    if page.stem == "write_a_plugin":  # its blocks are parts of a plugin: what they register is yielded
        assert [one.name for one in namespace["delaykit_components"]()] == ["my_delay"]
        assert len(list(namespace["delaykit_operators"]())) == 4


def test_every_page_with_a_python_block_is_run_by_some_test():
    """READMEs of plugins by `check_readme` in their plugin's tests, the front page by its own test."""
    ran = {*PAGES, ROOT / "README.md"}
    for readme in ROOT.glob("plugins/*/README.md"):
        tests = [path.read_text() for path in readme.parent.glob("tests/**/test_*.py")]
        ran |= {readme} if any("README.md" in text and "check_readme(" in text for text in tests) else set()
    folders = (".", "docs", "docs/*", "plugins/*", "plugins/*/docs", "benchmarks", "results", "tutorials")
    pages = [page for folder in folders for page in ROOT.glob(f"{folder}/*.md")]
    copies = {ROOT / "docs" / "tutorials", ROOT / "docs" / "plugins"}  # made when the site is built
    left = [page for page in pages if page not in ran and page.parent not in copies and BLOCK.search(page.read_text())]
    assert left == [] and len(pages) > 50
