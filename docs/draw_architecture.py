"""Draw the rooms of the core from its real imports, floor by floor: ``python docs/draw_architecture.py``.

The floors are the layers of the import contract in ``pyproject.toml``; an arrow is an import between two rooms, and
arrows that follow from others (a -> b -> c, hence a -> c) are left out. The picture is text, so a test can tell whether
it still shows the house as it stands.
"""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path
from xml.sax.saxutils import escape

import grimp

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
PICTURE = ROOT / "docs" / "images" / "architecture.svg"
CONTRACT = "Data flows one way"
WIDTH, LEFT, ROOM_WIDTH, ROOM_HEIGHT, FLOOR, MARGIN = 940, 150, 104, 24, 34, 16


def floors() -> list[list[str]]:
    """Read the floors from the import contract, the top one first; each is a list of rooms."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = settings["tool"]["importlinter"]["contracts"]
    layers = next(c["layers"] for c in contracts if c["name"].startswith(CONTRACT))
    return [[room.strip().removeprefix("delaykit.") for room in layer.replace("|", ":").split(":")] for layer in layers]


def arrows(rooms: set[str]) -> set[tuple[str, str]]:
    """Return who imports whom among the rooms, type-checking imports included, less what follows from others."""
    graph = grimp.build_graph("delaykit")
    found: dict[str, set[str]] = {room: set() for room in rooms}
    for module in graph.modules:
        for other in graph.find_modules_directly_imported_by(module):
            start, end = _room(module), _room(other)
            if start != end and start in rooms and end in rooms:
                found[start].add(end)
    return {(a, b) for a, ends in found.items() for b in ends if not _follows(a, b, found)}


def _room(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def _follows(start: str, end: str, found: dict[str, set[str]]) -> bool:
    """Tell whether ``end`` is reached from ``start`` by a longer way."""
    todo, seen = [room for room in found[start] if room != end], set()
    while todo:
        room = todo.pop()
        if room == end:
            return True
        if room not in seen:
            seen.add(room)
            todo += found[room]
    return False


def purpose(room: str) -> str:
    """Return the first sentence of a room's docstring."""
    package = ROOT / "delaykit" / room
    source = package / "__init__.py" if package.is_dir() else package.with_suffix(".py")
    text = ast.get_docstring(ast.parse(source.read_text(encoding="utf-8"))) or ""
    sentence = text.split("\n\n")[0].replace("\n", " ").replace("``", "").split(". ")[0]
    return re.sub(r":\w+:`~?([^`]*)`", r"\1", sentence).removesuffix(".")


def draw() -> str:
    """Return the picture as SVG: a floor a row, arrows as arcs on the left, what a room is for on the right."""
    rooms = [room for floor in floors() for room in floor]
    row = {room: MARGIN + k * FLOOR for k, room in enumerate(rooms)}
    lines = [_arc(row[a], row[b]) for a, b in sorted(arrows(set(rooms)), key=lambda pair: (row[pair[0]], row[pair[1]]))]
    boxes = [_box(room, row[room]) for room in rooms]
    height = 2 * MARGIN + (len(rooms) - 1) * FLOOR + ROOM_HEIGHT
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif">'
    marker = '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="6" markerHeight="6" '
    marker += 'orient="auto">'
    marker += '<path d="M0 0L8 4L0 8z" fill="#5b7c99"/></marker></defs>'
    title = "<title>Rooms of the core: an arrow is an import; all run downward</title>"
    ground = f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>'
    return "\n".join([head, title, marker, ground, *lines, *boxes, "</svg>", ""])


def _box(room: str, y: float) -> str:
    middle, right = LEFT + ROOM_WIDTH / 2, LEFT + ROOM_WIDTH + 14
    shape = f'<rect x="{LEFT}" y="{y}" width="{ROOM_WIDTH}" height="{ROOM_HEIGHT}" rx="4" fill="#eaf2f8" '
    shape += 'stroke="#5b7c99"/>'
    name = f'<text x="{middle:g}" y="{y + 16}" text-anchor="middle" font-size="12">{escape(room)}</text>'
    said = f'<text x="{right}" y="{y + 16}" font-size="11" fill="#41525f">{escape(purpose(room))}</text>'
    return shape + name + said


def _arc(start: float, end: float) -> str:
    y0, y1 = start + ROOM_HEIGHT * 0.7, end + ROOM_HEIGHT * 0.4
    bulge = min(LEFT - 14, 10 + 0.28 * (y1 - y0))
    path = f"M{LEFT} {y0:g}C{LEFT - bulge:g} {y0:g} {LEFT - bulge:g} {y1:g} {LEFT - 1} {y1:g}"
    return f'<path d="{path}" fill="none" stroke="#5b7c99" stroke-opacity="0.6" marker-end="url(#tip)"/>'


if __name__ == "__main__":
    PICTURE.write_text(draw(), encoding="utf-8")
    print(PICTURE.relative_to(ROOT))
