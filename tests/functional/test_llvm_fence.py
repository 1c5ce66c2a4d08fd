"""Kernels that speak to LLVM stand behind the backend of Numba: where they are gone, only speed is lost."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import delaykit

ROOT = Path(delaykit.__file__).parent
KERNELS = {
    "functional/delay_line/narrow.py",
    "functional/recurrence/llvm/grid.py",
    "functional/recurrence/llvm/vector.py",
    "functional/recurrence/llvm/windows.py",
    "functional/rows/dots.py",
    "functional/rows/registers.py",
    "functional/rows/sums.py",
    "functional/step_tape/cells/polynomials.py",
}


def imported(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module or ""}
    return found


SOURCES = {path.relative_to(ROOT).as_posix(): imported(path) for path in ROOT.rglob("*.py")}


def modules(paths: set[str]) -> set[str]:
    return {"delaykit." + path.removesuffix(".py").replace("/", ".") for path in paths}


def test_the_list_of_kernels_that_speak_to_llvm_is_whole() -> None:
    speaking = {path for path, names in SOURCES.items() if any(name.startswith("llvmlite") for name in names)}
    assert speaking <= KERNELS
    unneeded = KERNELS - speaking
    assert all(modules(KERNELS) & SOURCES[path] for path in unneeded), unneeded  # made of those that do


def test_nobody_but_the_backend_of_numba_imports_them() -> None:
    behind = modules(KERNELS)
    rooms = {"functional/rows/__init__.py", "functional/recurrence/llvm/__init__.py"}
    importing = {path for path, names in SOURCES.items() if names & behind} - KERNELS - rooms
    assert importing and {Path(path).name for path in importing} == {"numba.py"}, importing


RUN = """
import sys
import torch
from torch import nn

for name in {gone}:
    sys.modules[name] = None  # an import of it fails

import delaykit as dk

torch.manual_seed(0)
torch.set_num_threads(1)
spikes = (torch.rand(30, 4, 5) < 0.3).float()
found = []
for granularity in ("axonal", "dendritic", "synaptic"):
    for kernel in ("linear", "gaussian"):
        torch.manual_seed(1)
        layer = nn.Sequential(nn.Linear(5, 6))
        plan = {{"0": dk.At(dk.FreeDelay(granularity, kernel=kernel, max_delay=4, init=2.5), time_dim=0)}}
        dk.wrap_(layer, plan)
        out = layer(spikes)
        out.square().sum().backward()
        found += [out.detach(), *(p.grad for p in layer.parameters())]
torch.save(found, {to!r})
print(sorted(name for name in sys.modules if name in {gone} and sys.modules[name] is not None))
"""


@pytest.mark.slow
def test_without_them_everything_runs_to_the_same_values(tmp_path: Path) -> None:
    import torch

    pytest.importorskip("numba", reason="else there is nothing to take away")
    answers = []
    for k, gone in enumerate(([], sorted({"numba", "llvmlite", *modules(KERNELS)}))):
        to = str(tmp_path / f"{k}.pt")
        done = subprocess.run([sys.executable, "-c", RUN.format(gone=gone, to=to)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == "[]"
        answers.append(torch.load(to, weights_only=True))
    assert len(answers[0]) == len(answers[1]) >= 18
    for fast, plain in zip(*answers, strict=True):
        torch.testing.assert_close(fast, plain, rtol=1e-4, atol=1e-4)
