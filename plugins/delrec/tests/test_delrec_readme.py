"""README: the example runs as printed and its links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"


def test_the_example_runs_as_printed() -> None:
    (block,) = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
    exec(compile(block, "README", "exec"), namespace := {})
    assert "spread 0.059" in str(namespace["net"])


def test_links_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)]+)\)", README.read_text())
    assert links and not [link for link in links if not (README.parent / link).exists()]
