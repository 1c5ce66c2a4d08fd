"""Pages that are not written below ``docs/``: notebooks with their thumbnails, and READMEs with their links turned.

Sphinx reads below its own folder only, so that the pages are copied in before it begins; git ignores the copies.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
from pathlib import Path

DOCS = Path(__file__).parent
ROOT = DOCS.parent
LINK = re.compile(r"\[([^\[\]]*)\]\(([^)\s]+)\)")
ROW = re.compile(r"^\| \[[^\]]*\]\(tutorials/([^)]+)\) \| (.*) \|$", re.MULTILINE)
CODE = re.compile(r"(```.*?```)", re.DOTALL)


def copy_tutorials() -> None:
    """Copy the notebooks with their links turned, and write a gallery: a card each.

    A card holds what the README says of the tutorial, and the first picture of its cell that is tagged ``thumbnail``,
    or the last one of the notebook.
    """
    folder = fresh(DOCS / "tutorials")
    pages = {path: f"../plugins/{name}" for path, name in readmes().items()}
    about, cards = dict(ROW.findall((ROOT / "README.md").read_text(encoding="utf-8"))), []
    for notebook in sorted(ROOT.glob("tutorials/*.ipynb")):
        whole = json.loads(notebook.read_text(encoding="utf-8"))
        cells = whole["cells"]
        for cell in cells:
            if cell["cell_type"] == "markdown":
                text = turned("".join(cell["source"]), notebook.parent, folder, pages)
                cell["source"] = text.splitlines(keepends=True)
        (folder / notebook.name).write_text(json.dumps(whole), encoding="utf-8")
        title = "".join(cells[0]["source"]).splitlines()[0].lstrip("# ")
        card = [f":::{{grid-item-card}} {notebook.name[:2]} {title}", f":link: {notebook.stem}", ":link-type: doc"]
        tagged = [cell for cell in cells if "thumbnail" in cell["metadata"].get("tags", [])]
        pictures = [
            output["data"]["image/png"]
            for cell in tagged or cells
            for output in cell.get("outputs", [])
            if "image/png" in output.get("data", {})
        ]
        if pictures:
            (folder / f"{notebook.stem}.png").write_bytes(base64.b64decode("".join(pictures[0 if tagged else -1])))
            card.append(f":img-bottom: {notebook.stem}.png")
        cards += [*card, "", about[notebook.name], ":::", ""]
    names = sorted(path.stem for path in folder.glob("*.ipynb"))
    lines = ["# Tutorials", "", "::::{grid} 1 2 2 3", ":gutter: 3", "", *cards, "::::", ""]
    lines += ["```{toctree}", ":hidden:", "", *names, "```", ""]
    (folder / "index.md").write_text("\n".join(lines), encoding="utf-8")


def readmes() -> dict[Path, str]:
    """Return the READMEs of plugins, benchmarks and results, and the changelog, each with its page's name."""
    pages = {path: path.parent.name for path in sorted(ROOT.glob("plugins/*/README.md"))}
    pages |= {ROOT / "benchmarks" / "README.md": "benchmarks", ROOT / "results" / "README.md": "results"}
    return pages | {ROOT / "CHANGELOG.md": "changelog"}


def copy_readmes() -> None:
    """Copy them, with their links turned."""
    folder, pages = fresh(DOCS / "plugins"), readmes()
    for source, name in pages.items():
        parts = CODE.split(source.read_text(encoding="utf-8"))
        parts[::2] = [turned(text, source.parent, folder, pages) for text in parts[::2]]
        (folder / f"{name}.md").write_text("".join(parts), encoding="utf-8")


def turned(text: str, here: Path, folder: Path, pages: dict[Path, str]) -> str:
    """Let a page's relative links lead to pages of this site; what is no page here is named, not linked."""

    def target(match: re.Match[str]) -> str:
        text, link = match[1], match[2].partition("#")[0]
        if "://" in link or not link:
            return match[0]
        path = (here / link).resolve()
        path = path / "README.md" if path.is_dir() else path
        if path in pages:
            return f"[{text}]({pages[path]}.md)"
        if path.suffix in (".png", ".svg", ".gif"):
            name = "-".join(path.relative_to(ROOT).parts)
            shutil.copyfile(path, folder / name)
            return f"[{text}]({name})"
        if path.suffix == ".ipynb":
            return f"[{text}](../tutorials/{path.name})"
        if DOCS in path.parents and path.suffix == ".md":
            return f"[{text}]({os.path.relpath(path, folder)})"
        return text  # a file of the repository

    return LINK.sub(target, text)


def pointed(text: str, here: Path) -> str:
    """Let a page's links to notebooks and READMEs, which lead through the tree as a forge does, lead to copies."""
    copies = {path: DOCS / "plugins" / f"{name}.md" for path, name in readmes().items()}
    copies |= {path: DOCS / "tutorials" / path.name for path in ROOT.glob("tutorials/*.ipynb")}

    def target(match: re.Match[str]) -> str:
        copy = copies.get((here / match[2].partition("#")[0]).resolve())
        return match[0] if copy is None else f"[{match[1]}]({os.path.relpath(copy, here)})"

    parts = CODE.split(text)
    parts[::2] = [LINK.sub(target, part) for part in parts[::2]]
    return "".join(parts)


def fresh(folder: Path) -> Path:
    """Return an empty folder; what an earlier build copied is gone."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder
