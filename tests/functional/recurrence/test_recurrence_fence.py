"""The kernels in vector registers stand behind a fence: without that folder only speed is lost."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

import delaykit
from delaykit.arrivals import Linear, Triangle
from delaykit.functional.recurrence.connection import numba as compiled
from tests.functional.recurrence.cases import GRANULARITIES, RESETS, Case, assert_equal_to_naive

FOLDER = "delaykit.functional.recurrence.llvm"


@pytest.fixture(name="fence")
def the_folder_is_gone(monkeypatch):
    pytest.importorskip("numba", reason="the Numba kernels need numba")
    for name in (FOLDER, *(f"{FOLDER}.{file}" for file in ("grid", "vector", "windows"))):
        monkeypatch.setitem(sys.modules, name, None)
    compiled.vectors.cache_clear()
    yield
    compiled.vectors.cache_clear()


@pytest.mark.parametrize("kernel", [Linear(), Triangle(1.7), Triangle(4.3)], ids=str)
@pytest.mark.parametrize("granularity", [*GRANULARITIES, None])
@pytest.mark.parametrize("reset", [RESETS[1], RESETS[9]], ids=str)
def test_everything_runs_without_it(fence, granularity, kernel, reset):
    assert compiled.vectors() is None
    assert_equal_to_naive(Case(21, GRANULARITIES.get(granularity), kernel, **dict(reset)))


def test_one_file_alone_knows_of_it():
    root = Path(delaykit.__file__).parent
    knowing = []
    for path in root.rglob("*.py"):
        if "llvm" in path.parent.parts[-1:]:
            continue
        tree = ast.parse(path.read_text())
        strings = [n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
        modules = [n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)]
        if any(FOLDER in text for text in (*strings, *modules)):
            knowing.append(path.relative_to(root).as_posix())
    assert knowing == ["functional/recurrence/connection/numba.py"]
