"""README: the examples run as printed and its links lead somewhere."""

from __future__ import annotations

from pathlib import Path

import delaykit as dk
from delaykit.testing import check_readme


def test_the_readme_keeps_its_word(tmp_path: Path) -> None:
    first, second = check_readme(Path(__file__).parents[1] / "README.md", tmp_path)
    assert "spread 0.059" in first.output
    for name, (model, rules) in second.names["models"].items():
        delays = [module for module in model.modules() if isinstance(module, dk.PointDelay)]
        assert len(delays) == len(rules), name
