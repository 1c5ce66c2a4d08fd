"""The table of operators: a judge, plain torch and Numba for each; which have Triton; the docs say the same."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path

import pytest

from delaykit import builtins, registry
from delaykit.records import BACKENDS, Operator

RECORDS = list(builtins.delaykit_operators())
TABLE = {record.name: {r.backend: r for r in RECORDS if r.name == record.name} for record in RECORDS}
WITH_TRITON = {"tap_filter", "tap_correlation", "synapse_filter", "synapse_correlation", "running_sum"}
DOCS = Path(__file__).parents[2] / "docs" / "reference" / "operators.md"


def room(record: Operator) -> str:
    return record.function.rpartition(":")[0].rpartition(".")[0]


@pytest.mark.parametrize("name", TABLE)
def test_every_operator_has_a_judge_plain_torch_and_numba_in_one_room(name: str) -> None:
    assert {"reference", "torch", "cpu"} <= set(TABLE[name]) <= set(BACKENDS)
    assert len({room(record) for record in TABLE[name].values()}) == 1


def test_these_have_triton() -> None:
    for name, row in TABLE.items():
        print(f"{name:24}", *(backend if backend in row else "-" for backend in BACKENDS))
    assert {name for name, row in TABLE.items() if "gpu" in row} == WITH_TRITON


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: f"{record.name}-{record.backend}")
def test_every_record_points_at_a_function_of_its_own(record: Operator) -> None:
    if record.backend == "gpu" and importlib.util.find_spec("triton") is None:
        pytest.skip("imports Triton")
    function = registry.implementation(record.name, record.backend)
    assert callable(function) and f"{function.__module__}:{function.__name__}" == record.function


@pytest.mark.parametrize("record", [r for r in RECORDS if r.backend == "reference"], ids=lambda record: record.name)
def test_no_judge_runs_what_it_judges(record: Operator) -> None:
    """A judge imports nothing of the other backends, nor the dispatcher through which it would find them."""
    spec = importlib.util.find_spec(record.function.partition(":")[0])
    assert spec is not None and spec.origin is not None
    imported = {
        f"{node.module}.{name.name}"
        for node in ast.walk(ast.parse(Path(spec.origin).read_text()))
        if isinstance(node, ast.ImportFrom)
        for name in node.names
    }
    allowed = ("delaykit.functional.taps", "delaykit.functional.reference")
    assert not [name for name in imported if name.startswith("delaykit") and not name.startswith(allowed)]


def test_the_documented_table_is_this_one() -> None:
    rows = [
        [cell.strip(" `") for cell in line.strip("|").split("|")]
        for line in DOCS.read_text().splitlines()
        if line.startswith("| `")
    ]
    expected = [
        [name, room(row["torch"]).rpartition(".")[2], *("yes" if backend in row else "-" for backend in BACKENDS)]
        for name, row in TABLE.items()
    ]
    assert rows == expected
