"""How-to pages: the Python blocks run as printed, one after the other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGES = sorted((Path(__file__).parents[2] / "docs" / "howto").glob("*.md"))
TEXT_ONLY = {"write_a_plugin.md"}  # its blocks are files of the generated plugin, which has tests of its own

pytest.importorskip("snntorch", reason="the pages wrap snntorch models")
pytest.importorskip("delaykit_spatial", reason="the pages show several plugins")
pytest.importorskip("delaykit_delrec", reason="the pages show several plugins")


@pytest.mark.parametrize("page", [page for page in PAGES if page.name not in TEXT_ONLY], ids=lambda page: page.stem)
def test_the_blocks_of_a_page_run(page, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where a page writes a file
    namespace = {"__name__": page.stem}
    blocks = re.findall(r"^```python\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
    for number, block in enumerate(blocks):
        exec(compile(block, f"{page.name} block {number}", "exec"), namespace)
    assert blocks
    said = [line.split() for line in capsys.readouterr().out.splitlines()]
    if page.stem == "export_to_hardware":
        assert [line[:1] + line[2:] for line in said if "differ" in line][0][0] == "0"
    if page.stem == "train_whole_delays":
        assert said[0][0] == "none" and float(said[0][1]) > 0.0 and said[1] == ["straight-through", "0.0"]
