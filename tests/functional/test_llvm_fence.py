"""All code that speaks to LLVM is one folder behind the backend of Numba: without it, nothing but speed is lost."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import delaykit
from delaykit.arrivals import Linear, Triangle
from delaykit.functional.delay_line import numba as delay_line
from delaykit.functional.delayed_linear import numba as delayed_linear
from delaykit.functional.recurrence.connection import numba as connection
from delaykit.functional.step_tape import numba as step_tape
from delaykit.plugins import builtins
from tests.functional.judging import DTYPES, assert_close, needs_numba
from tests.functional.recurrence.cases import GRANULARITIES, RESETS, Case, assert_equal_to_naive
from tests.functional.test_operators import CASES, outcome

ROOT = Path(delaykit.__file__).parent
FOLDER = ROOT / "functional" / "llvm"
NAMES = {  # of the folder's files, where they are used
    delay_line: ("vectors",), delayed_linear: ("vectors",), step_tape: ("vectors", "vector_rows"),
    connection: ("vector", "windows"),
}  # fmt: skip
INSIDE = ("llvmlite", "numba.core", "numba.extending", "numba.np")
SELECTED = [
    f"tests/functional/{name}.py"
    for name in ("test_operators", "test_event_product", "recurrence/test_recurrence_reference",
                 "recurrence/test_recurrence_llvm")
]  # fmt: skip


def imported(path: Path) -> set[str]:
    """Every module and name that a file imports, wherever in the file."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def test_code_that_speaks_to_llvm_is_in_the_folder_alone() -> None:
    packages = [ROOT, *ROOT.parent.glob("plugins/*/src")]
    speaking = {
        path for package in packages for path in package.rglob("*.py")
        if re.search("numba|llvmlite", path.read_text(encoding="utf-8"))
        and any(name.startswith(INSIDE) for name in imported(path))
    }  # fmt: skip
    assert speaking and all(path.is_relative_to(FOLDER) for path in speaking), speaking


def test_every_file_of_the_folder_does_or_serves_those_that_do() -> None:
    assert {path.name for path in FOLDER.iterdir()} - {"__pycache__"} == {
        "__init__.py", "adjacent_taps.py", "polynomials.py", "recurrence", "registers.py", "rows",
    }  # fmt: skip


def test_the_operators_use_it() -> None:
    """An error in the folder would be taken for its absence."""
    for module, names in NAMES.items():
        for name in names:
            assert getattr(module, name).__name__.startswith("delaykit.functional.llvm."), (module.__name__, name)


@pytest.fixture(name="without")
def the_folder_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, names in NAMES.items():
        for name in names:
            monkeypatch.setattr(module, name, None)


@needs_numba
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", [r.name for r in builtins.delaykit_operators() if r.backend == "cpu"][:-1])
def test_without_it_an_operator_equals_its_judge(without: None, name: str, dtype: torch.dtype) -> None:
    for arguments in CASES[name]:
        found = outcome(name, "cpu", dtype, arguments)
        assert_close(found, outcome(name, "reference", torch.float64, arguments), dtype)


@needs_numba
@pytest.mark.parametrize("kernel", [Linear(), Triangle(1.7), Triangle(4.3)], ids=str)
@pytest.mark.parametrize("granularity", [*GRANULARITIES, None])
@pytest.mark.parametrize("reset", [RESETS[1], RESETS[9]], ids=str)
def test_without_it_a_recurrence_equals_its_judge(without: None, granularity, kernel, reset) -> None:
    assert_equal_to_naive(Case(21, GRANULARITIES.get(granularity), kernel, **dict(reset)))


def test_doctor_tells_where_it_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    from delaykit.commands import health

    def told() -> health.Row:
        return next(row for row in health.optional() if "vector registers" in row.what)

    assert told().ok
    monkeypatch.setattr(health, "VECTORS", "delaykit.functional.gone")
    assert not told().ok and not told().broken and "slower" in told().detail


RUN = """
import sys
import torch
from torch import nn

for name in {gone}:
    sys.modules[name] = None  # an import of it fails

import delaykit as dk

torch.manual_seed(0)
torch.set_num_threads(1)
spikes = (torch.rand(200, 16, 70) < 0.1).float()
found = []
for granularity in ("axonal", "dendritic", "synaptic"):
    for kernel in ("linear", "triangle", "gaussian"):
        torch.manual_seed(1)
        layer = nn.Sequential(nn.Linear(70, 64))
        plan = {{"0": dk.At(dk.FreeDelay(granularity, kernel=kernel, max_delay=4, init=2.5), time_dim=0)}}
        dk.wrap_(layer, plan)
        out = layer(spikes)
        out.square().mean().backward()
        found += [out.detach(), *(p.grad for p in layer.parameters())]
torch.save(found, {to!r})
print([name for name in ("delaykit.functional.llvm.rows", "numba.core") if sys.modules.get(name)])
"""


@pytest.mark.slow
@needs_numba
def test_wrapped_layers_run_without_it_and_without_numba_to_the_same_values(tmp_path: Path) -> None:
    answers, loaded = [], []
    folder = "delaykit.functional.llvm"
    for k, gone in enumerate(([], [folder], [folder, "numba", "llvmlite"])):
        to = str(tmp_path / f"{k}.pt")
        done = subprocess.run([sys.executable, "-c", RUN.format(gone=gone, to=to)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        loaded.append(done.stdout.strip())
        answers.append(torch.load(to, weights_only=True))
    assert loaded == [f"['{folder}.rows', 'numba.core']", "['numba.core']", "[]"]
    assert len(answers[0]) >= 30
    for fast, plain, torch_alone in zip(*answers, strict=True):
        torch.testing.assert_close(plain, fast, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(torch_alone, fast, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@needs_numba
def test_the_suite_of_the_operators_passes_where_it_was_deleted(tmp_path: Path) -> None:
    left = shutil.ignore_patterns("__pycache__", ".*")
    for name in ("delaykit", "tests", "docs/reference"):
        shutil.copytree(ROOT.parent / name, tmp_path / name, ignore=left)
    for name in ("pyproject.toml", "conftest.py"):
        shutil.copy(ROOT.parent / name, tmp_path)
    shutil.rmtree(tmp_path / FOLDER.relative_to(ROOT.parent))
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", *SELECTED]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-6000:]
    assert "tests this file" in done.stdout  # what is skipped: that of the folder's own files
