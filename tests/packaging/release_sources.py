"""Copy every distribution as it is released: links that need a checkout lead to the home page, or are plain text.

Usage: python tests/packaging/release_sources.py TARGET [HOME]

HOME is the repository's address, which no file of the tree knows: the release workflow passes its own. With it a
package index shows all pictures, its links lead somewhere, and `[project.urls]` names home page, issues and changelog.
"""

from __future__ import annotations

import posixpath
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CODE = re.compile(r"(```.*?```)", re.DOTALL)
LINK = re.compile(r"(!?)\[([^\[\]]*)\]\((?!\w+:|#)([^)\s]+)\)")


def distributions() -> dict[str, str]:
    """Return the folder of each distribution, as in the tree, by its name."""
    folders = ["."] + sorted(path.parent.relative_to(ROOT).as_posix() for path in ROOT.glob("plugins/*/pyproject.toml"))
    return {posixpath.basename(folder) if folder != "." else "delaykit": folder for folder in folders}


def described(text: str, folder: str, home: str | None) -> str:
    """Return the README of ``folder`` for a reader who has no checkout; code stays as it is."""

    def target(match: re.Match[str]) -> str:
        picture, words, link = match.groups()
        if home is None:
            return "" if picture else words
        path = posixpath.normpath(posixpath.join(folder, link))
        kind = "raw" if picture else "tree" if (ROOT / path).is_dir() else "blob"
        return f"{picture}[{words}]({home}/{kind}/HEAD/{path})"

    parts = CODE.split(text)
    parts[::2] = [LINK.sub(target, part) for part in parts[::2]]
    return "".join(parts)


def addressed(settings: str, folder: str, home: str | None) -> str:
    """Return ``pyproject.toml`` with the addresses that follow from the home page."""
    if home is None:
        return settings
    changes = posixpath.normpath(posixpath.join(folder, "CHANGELOG.md"))
    urls = {"Homepage": home, "Issues": f"{home}/issues", "Changelog": f"{home}/blob/HEAD/{changes}"}
    lines = "".join(f'{name} = "{url}"\n' for name, url in urls.items())
    return settings.replace("[project.urls]\n", f"[project.urls]\n{lines}")


def copy(folder: str, target: Path, home: str | None) -> None:
    """Copy the tracked files of one distribution, as they lie in the tree."""
    asked = ["delaykit", "README.md", "CHANGELOG.md", "LICENSE", "pyproject.toml"] if folder == "." else ["."]
    listed = subprocess.run(
        ["git", "ls-files", *asked], cwd=ROOT / folder, check=True, capture_output=True, text=True
    ).stdout.splitlines()
    for name in listed:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / folder / name, target / name)
    for name, change in (("README.md", described), ("pyproject.toml", addressed)):
        text = (target / name).read_text(encoding="utf-8")
        (target / name).write_text(change(text, folder, home), encoding="utf-8")


def main(target: Path, home: str | None) -> None:
    """Copy all of them below ``target``."""
    if home is not None and not home.startswith("https://"):
        raise SystemExit(f"{home!r} is no address: pass https://... of the repository, or nothing")
    for name, folder in distributions().items():
        copy(folder, target / name, home and home.rstrip("/"))
    if home is None:
        print("no home page given (HOME_PAGE=https://...): links that need a checkout are plain text in descriptions")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), sys.argv[2] if len(sys.argv) > 2 else None)
