"""README: the example runs as printed and its links lead somewhere; importing loads nothing heavy."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import delaykit_spatial
from delaykit.testing import check_readme


def test_the_readme_keeps_its_word(tmp_path: Path) -> None:
    (example,) = check_readme(Path(__file__).parents[1] / "README.md", tmp_path)
    assert "31.6 times fewer" in example.output


def test_every_public_name_is_there_and_imported_on_first_use() -> None:
    for name in delaykit_spatial.__all__:
        assert getattr(delaykit_spatial, name) is not None
    code = "import sys, delaykit_spatial, delaykit_spatial.plugin; print({'torch', 'matplotlib'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "set()"
