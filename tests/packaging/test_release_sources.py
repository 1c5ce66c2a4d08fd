"""What a package index shows of a distribution leads somewhere for a reader who has no checkout."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
HOME = "https://forge.example/people/delaykit"
LINK = re.compile(r"\]\(([^)\s]+)\)")

pytestmark = pytest.mark.skipif(not (ROOT / "plugins").is_dir(), reason="no checkout")
made = runpy.run_path(str(Path(__file__).with_name("release_sources.py")))
FOLDERS = sorted(made["distributions"]().values())


def prose(text: str) -> str:
    return re.sub(r"```.*?```", "", text, flags=re.DOTALL)


def code(text: str) -> list[str]:
    return re.findall(r"```.*?```", text, flags=re.DOTALL)


@pytest.mark.parametrize("folder", FOLDERS)
def test_without_a_home_page_no_link_needs_a_checkout(folder: str) -> None:
    text = (ROOT / folder / "README.md").read_text()
    shown = made["described"](text, folder, None)
    assert all(link.startswith("https://") for link in LINK.findall(prose(shown)))
    assert code(shown) == code(text) and len(prose(shown)) > 0.5 * len(prose(text))


@pytest.mark.parametrize("folder", FOLDERS)
def test_with_a_home_page_every_link_is_whole_and_its_file_is_there(folder: str) -> None:
    text = (ROOT / folder / "README.md").read_text()
    shown = made["described"](text, folder, HOME)
    links = LINK.findall(prose(shown))
    assert len(links) == len(LINK.findall(prose(text))) and all(link.startswith("https://") for link in links)
    for link in links:
        if link.startswith(HOME):
            kind, _, path = link.removeprefix(HOME + "/").partition("/HEAD/")
            assert ".." not in path and (ROOT / path).exists(), link
            assert (kind == "tree") == (ROOT / path).is_dir()


def test_all_distributions_name_one_home_page() -> None:
    found = []
    for folder in FOLDERS:
        settings = (ROOT / folder / "pyproject.toml").read_text()
        urls = tomllib.loads(made["addressed"](settings, folder, HOME))["project"]["urls"]
        assert urls["Changelog"].startswith(f"{HOME}/blob/HEAD/") and urls["Issues"] == f"{HOME}/issues"
        assert (ROOT / urls["Changelog"].partition("/HEAD/")[2]).is_file()
        found.append(urls["Homepage"])
    assert len(FOLDERS) >= 9 and set(found) == {HOME}


def test_a_copy_has_what_is_built_and_nothing_that_git_does_not_know(tmp_path: Path) -> None:
    made["copy"]("plugins/motifs", tmp_path, HOME)
    assert (tmp_path / "src" / "delaykit_motifs" / "plugin.py").is_file() and not list(tmp_path.rglob("__pycache__"))
    assert HOME in (tmp_path / "pyproject.toml").read_text() and HOME in (tmp_path / "README.md").read_text()


def test_what_is_no_address_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no address"):
        made["main"](tmp_path, "people/delaykit")
