"""The picture of the house shows it as it stands."""

from __future__ import annotations

import importlib.util
from pathlib import Path

ROOT = Path(__file__).parents[2]
spec = importlib.util.spec_from_file_location("draw_architecture", ROOT / "docs" / "draw_architecture.py")
assert spec is not None and spec.loader is not None
draw_architecture = importlib.util.module_from_spec(spec)
spec.loader.exec_module(draw_architecture)


def test_the_picture_is_drawn_from_the_imports_as_they_are() -> None:
    fix = "run python docs/draw_architecture.py"
    assert draw_architecture.PICTURE.read_text(encoding="utf-8") == draw_architecture.draw(), fix


def test_all_arrows_run_downward() -> None:
    rooms = [room for floor in draw_architecture.floors() for room in floor]
    assert all(rooms.index(a) < rooms.index(b) for a, b in draw_architecture.arrows(set(rooms)))
