"""The table of operators: a judge, plain torch and Numba for each; which have Triton; the docs say the same."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import pkgutil
from pathlib import Path

import pytest
import torch
from torch import Tensor

from delaykit import functional
from delaykit.plugins import builtins, registry
from delaykit.plugins.records import BACKENDS, Operator
from tests.functional.judging import DTYPES, assert_close, device_of, drawn, needs_numba, needs_triton

RECORDS = list(builtins.delaykit_operators())
TABLE = {record.name: {r.backend: r for r in RECORDS if r.name == record.name} for record in RECORDS}
CELLS = {"tape_polynomials", "tape_tents", "tape_pending", "tape_heights", "tape_deliver", "tape_overlap"}  # by taps
IN_TORCH = {"tape_store", "leaky_step", *CELLS}  # the first is one kernel anyway
SUMS = [name for name in TABLE if name != "recurrence"]  # which has test_recurrence_reference.py
WITHOUT_SUMS = {"delayed_convolution": "tap_filter"}  # room: by what it runs; judged in test_delayed_convolution.py
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
    assert {name for name, row in TABLE.items() if "gpu" not in row} == IN_TORCH


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
    allowed = ["delaykit.functional.taps", "delaykit.functional.reference"]
    if record.name == "recurrence":  # what its arguments are
        allowed += [
            f"delaykit.functional.{file}" for file in ("dynamics", "tents", "recurrence.state", "recurrence.dense")
        ]
        allowed.append("delaykit.functional.recurrence.connection.base")
    assert not [name for name in imported if name.startswith("delaykit") and not name.startswith(tuple(allowed))]


def test_the_documented_table_is_this_one() -> None:
    rows = [
        [cell.strip(" `") for cell in line.strip("|").split("|")]
        for line in DOCS.read_text().splitlines()
        if line.startswith("| `")
    ]
    expected = [
        [name, room(row["torch"]).rpartition(".")[2], *("yes" if backend in row else "-" for backend in BACKENDS)]
        for name, row in TABLE.items()
    ] + [[name, name, "yes", *[by] * 3] for name, by in WITHOUT_SUMS.items()]
    assert rows == expected


def test_every_room_with_an_operator_has_its_judge_and_its_rows() -> None:
    rooms = {path.parent.name for path in Path(functional.__path__[0]).glob("*/operator.py")}
    assert rooms == {room(row["torch"]).rpartition(".")[2] for row in TABLE.values()} | set(WITHOUT_SUMS)
    for name, by in WITHOUT_SUMS.items():
        judge = importlib.import_module(f"delaykit.functional.{name}.reference")
        operator = importlib.import_module(f"delaykit.functional.{name}.operator")
        assert getattr(judge, name) is not getattr(operator, name) and set(TABLE[by]) == set(BACKENDS)


def test_the_rooms_are_listed_and_keep_what_they_promise() -> None:
    found = {info.name for info in pkgutil.iter_modules(functional.__path__)} - {"llvm"}  # which may be deleted
    assert functional.__all__ == sorted(found)
    assert set(functional.__all__) <= set(dir(functional))
    for name in functional.__all__:
        module = importlib.import_module(f"delaykit.functional.{name}")
        if hasattr(module, "__path__"):
            assert module.__all__ and all(hasattr(module, public) for public in module.__all__), name


STEPS, BATCH, PRE, POST, TAPS = 6, 2, 3, 2, 2
DELAYS = torch.tensor([[0, 2, 9], [1, 2, 4]])  # (tap, pre); one reaches beyond the sequence, one step has two taps
SYNAPSES = torch.tensor([[[0, 2, 9], [1, 0, 3]], [[1, 2, 4], [5, 0, 2]]])  # (tap, post, pre)
ROWS = drawn(PRE, 20, 4, seed=9)  # (channel, time, chunk)
X, Y, MAPS = drawn(STEPS, BATCH, PRE), drawn(STEPS, BATCH, POST, seed=1), drawn(STEPS, BATCH, PRE, 2, seed=2)
WEIGHT, DECAY = drawn(POST, PRE, seed=3) - 0.5, drawn(POST, PRE, seed=4)
STATES = drawn(BATCH, PRE, POST, seed=5), drawn(BATCH, PRE, POST, seed=6)
TURNED = DECAY.t().contiguous(), WEIGHT.t().contiguous()
VALUE = drawn(TAPS, PRE, seed=7) - 0.5
STRENGTH = drawn(TAPS, POST, PRE, seed=8) - 0.5
AHEAD = SYNAPSES.permute(2, 1, 0).contiguous(), STRENGTH.permute(2, 1, 0).contiguous()  # (pre, post, tap)
CASES: dict[str, list[tuple]] = {
    "tap_filter": [(x, DELAYS, VALUE, causal) for x in (X[..., None], MAPS) for causal in (True, False)],
    "tap_correlation": [(X[..., None], X[..., None] - 0.5, DELAYS), (MAPS, MAPS.flip(0), DELAYS)],
    "tap_gradients": [(X[..., None], X[..., None] - 0.5, DELAYS, VALUE), (MAPS, MAPS.flip(0), DELAYS, VALUE)],
    "synapse_filter": [(x, SYNAPSES, STRENGTH, causal) for x in (X, X * (X > 0.95)) for causal in (True, False)],
    "synapse_correlation": [(x, Y, SYNAPSES) for x in (X, X * (X > 0.95))],
    "event_product": [(x.flatten(0, 1), WEIGHT, bias) for x in (X, X * (X > 0.8)) for bias in (DECAY[:, 0], None)],
    "event_gradient": [(Y.flatten(0, 1), x.flatten(0, 1)) for x in (X, X * (X > 0.8))],
    "running_sum": [(X, decay, reverse) for decay in (None, DECAY[0]) for reverse in (True, False)],
    "decay_filter": [(X, DECAY, WEIGHT)],
    "decay_filter_gradient": [(X, Y, DECAY, WEIGHT, needs_grad_x) for needs_grad_x in (True, False)],
    "decay_step": [(STATES[0], X[0], *TURNED)],
    "decay_step_back": [(*STATES, y, X[0], *TURNED, *(torch.ones(PRE, POST).double(),) * 2) for y in (Y[0], None)],
    "leaky_step": [(X[0], 2 * X[1] - 0.5, 0.8, 0.5, reset) for reset in ("subtract", "zero", "none")],
    "tape_store": [(ROWS, 5, drawn(4, PRE)), (ROWS, 5, drawn(2, PRE, 2))],
    "tape_lines": [(ROWS, 10, sign * DELAYS, VALUE, torch.empty(PRE, 2, 2).double()) for sign in (1, -1)],
    "tape_series": [(ROWS, 10, -DELAYS, VALUE, torch.empty(PRE, 5, 4).double())],
    "tape_synapses": [
        (ROWS, 10, -AHEAD[0], strength, torch.empty(POST, 2, 2).double())
        for strength in (AHEAD[1], AHEAD[1] * (AHEAD[1] > 0.3))
    ],
    "tape_polynomials": [
        (
            rows,
            10,
            -AHEAD[0][..., 0].contiguous(),
            AHEAD[1][..., 1].contiguous(),
            AHEAD[1][..., 0].contiguous(),
            terms,
            torch.empty(POST, 1, rows.shape[2]).double(),
        )
        for terms in (2, 4)
        for rows in (ROWS, drawn(PRE, 20, 43, seed=13))
    ],
    "tape_correlation": [(ROWS, ROWS.flip(1), DELAYS)],
    "tape_tents": [(ROWS, 6, drawn(own, 5, seed=10), ROWS.flip(1), 3, n) for own, n in ((1, 5), (PRE, 4))],
    "tape_pending": [(ROWS, 6, drawn(own, 9, seed=10), 3, 2, drawn(PRE, 5, 4, seed=12)) for own in (1, PRE)],
    "tape_heights": [(ROWS, 6, drawn(PRE, 5, seed=10), torch.empty(PRE, 4).double())],
    "tape_deliver": [(ROWS, 7, AHEAD[0][..., 0].int().contiguous(), AHEAD[1], drawn(POST, 5, 4, seed=12), 3)],
    "tape_overlap": [(ROWS, 10, -AHEAD[0].int(), drawn(POST, 4, seed=11), torch.zeros(PRE, POST, TAPS).double())],
}
MARKS = {"torch": (), "cpu": (needs_numba,), "gpu": (needs_triton,)}


def outcome(name: str, backend: str, dtype: torch.dtype, arguments: tuple) -> list[Tensor]:
    """Everything that a function returns or writes to: its outputs and final states."""
    device = device_of(backend)
    given = [
        a.to(device, dtype if a.is_floating_point() else None).clone() if isinstance(a, Tensor) else a
        for a in arguments
    ]
    function = registry.implementation(name, backend)
    assert function is not None
    out = function(*given)
    outputs = [] if out is None else [out] if isinstance(out, Tensor) else list(out)
    return outputs + [a for a in given if isinstance(a, Tensor) and a.is_floating_point()]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("name", "backend"),
    [
        pytest.param(r.name, r.backend, marks=MARKS[r.backend])
        for r in RECORDS
        if r.backend != "reference" and r.name in SUMS
    ],
)
def test_equals_the_judge_in_outputs_and_states(name: str, backend: str, dtype: torch.dtype) -> None:
    for arguments in CASES[name]:
        found = outcome(name, backend, dtype, arguments)
        assert_close(found, outcome(name, "reference", torch.float64, arguments), dtype)
