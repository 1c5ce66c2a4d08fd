"""The picture of the house shows it as it stands."""

from __future__ import annotations

import collections
import importlib.util
import re
from pathlib import Path

import delaykit

CORE = Path(delaykit.__file__).parent
PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "architecture.md"
OPERATOR = {"operator", "reference", "torch", "numba", "triton"}  # files of an operator's room
ON_FLOORS = {"exact_gradients", "neurons"}  # in the page's table
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


def test_names_of_files_that_occur_twice_are_all_listed() -> None:
    names = collections.Counter(path.stem for path in CORE.rglob("*.py") if path.stem != "__init__")
    twice = {name for name, count in names.items() if count > 1}
    (listed,) = re.findall(r"mean what their room says: (.*?)\.\n", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert re.findall(r"`(\w+)`", listed) == sorted(twice - OPERATOR - ON_FLOORS)
