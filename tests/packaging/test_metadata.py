"""Every distribution of this tree says what a package index shows, and for which core it was made."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import delaykit

ROOT = Path(__file__).parents[2]
FILES = [ROOT / "pyproject.toml", *sorted(ROOT.glob("plugins/*/pyproject.toml"))]

pytestmark = pytest.mark.skipif(not (ROOT / "plugins").is_dir(), reason="no checkout")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.parent.name)
def test_a_distribution_has_licence_keywords_and_classifiers(path: Path) -> None:
    text = path.read_text()
    assert (path.parent / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()
    for field in ("license", "license-files", "keywords", "classifiers", "readme", "description"):
        assert re.search(rf"^{field} = ", text, flags=re.MULTILINE), field
    assert re.search(r"^\[project\.urls\]\n(\S+|\"[^\"]+\") = \"https://", text, flags=re.MULTILINE)


@pytest.mark.parametrize("path", FILES[1:], ids=lambda path: path.parent.name)
def test_a_plugin_is_capped_to_the_minor_version_of_the_core(path: Path) -> None:
    major, minor = delaykit.__version__.split(".")[:2]
    text = path.read_text()
    assert f">={major}.{minor},<{major}.{int(minor) + 1}" in text
    for extra in ("snntorch", "norse"):
        assert re.search(rf"^{extra} = \[", text, flags=re.MULTILINE), extra
