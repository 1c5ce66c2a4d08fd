"""Every operator of every official distribution has a judge, plain torch and Numba, and the docs say the same."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

from delaykit.functional.dispatch import backend, implementation_of
from delaykit.names import OFFICIAL
from delaykit.plugins import registry
from delaykit.plugins.records import BACKENDS

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs" / "reference" / "operators.md"
INSTALLED = [s for s in registry.loader().statuses if s.name in OFFICIAL or s.name == "builtin"]
TABLE: dict[str, dict[str, str]] = {}  # operator: {backend: function}
for status in INSTALLED:
    for record in status.operators:
        TABLE.setdefault(record.name, {})[record.backend] = record.function
CPU = torch.device("cpu")


@pytest.mark.parametrize("path", sorted(ROOT.glob("plugins/*/src/*/plugin.py")), ids=lambda path: path.parts[-4])
def test_no_plugin_with_operators_is_left_out(path: Path) -> None:
    (status,) = [s for s in INSTALLED if s.name == path.parts[-4]]
    assert status.state == "ok"
    assert bool(status.operators) == ("def delaykit_operators" in path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", TABLE)
def test_every_operator_has_a_judge_plain_torch_and_numba(name: str) -> None:
    assert {"reference", "torch", "cpu"} <= set(TABLE[name]) <= set(BACKENDS)
    assert len(set(TABLE[name].values())) == len(TABLE[name]), "a judge is never what it judges"


@pytest.mark.parametrize("name", TABLE)
def test_who_asks_for_the_judge_gets_it(name: str) -> None:
    found = {}
    for one in ("reference", "torch", *(["cpu"] if importlib.util.find_spec("numba") else [])):
        with backend(one):
            function = implementation_of(name, CPU)
        found[one] = f"{function.__module__}:{function.__qualname__}"
    assert found == {one: TABLE[name][one] for one in found}
    assert found["reference"].partition(":")[0].endswith(".reference")


def test_the_documented_table_of_plugins_is_this_one() -> None:
    names = {status.name for status in INSTALLED} - {"builtin"}
    rows = [
        [cell.strip(" `") for cell in line.strip("|").split("|")]
        for line in DOCS.read_text(encoding="utf-8").splitlines()
        if line.startswith(tuple(f"| {name} |" for name in names))
    ]
    expected = [
        [plugin, name, *(TABLE[name][b].partition(":")[0].partition(".")[2] for b in ("reference", "torch", "cpu"))]
        for plugin in sorted(names)
        for name in TABLE
        if name.startswith(f"{plugin}_")
    ]
    assert rows == expected and not any("gpu" in TABLE[row[1]] for row in rows)
