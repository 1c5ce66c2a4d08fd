"""README: every example runs as printed, and its links lead somewhere."""

from __future__ import annotations

from pathlib import Path

from delaykit.testing import check_readme


def test_the_readme_keeps_its_word(tmp_path: Path) -> None:
    check_readme(Path(__file__).parents[1] / "README.md", tmp_path)
