"""README: every Python block runs as printed, and every link and picture it names is there."""

from __future__ import annotations

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
