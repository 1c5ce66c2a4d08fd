"""The rooms of tests mirror those of delaykit: every module of the core is named by a test file of its room.

A test file names a module by its own name, ``test_clocks.py`` for ``attaching/clocks.py``, or by importing it. Modules
that are tested as part of a whole are listed in ``ELSEWHERE`` with the file that does so.
"""

from __future__ import annotations

import ast
from fnmatch import fnmatch
from pathlib import Path

import delaykit

TESTS = Path(__file__).parents[1]
CORE = Path(delaykit.__file__).parent
BY_KIND = {  # what spans rooms
    "docs": "pages and examples", "fixtures": "stored files", "golden": "stored values",
    "hostile": "each row of README.md: exact, or a clear error", "integration": "networks with everything at once",
    "networks": "networks that tests of several rooms share", "packaging": "the source tree and its distributions",
}  # fmt: skip
ELSEWHERE = {
    "adapters.*.constants": "test_time_constants.py",
    "adapters.*.dynamics": "functional/recurrence/test_recurrence_libraries.py",
    "adapters.*.exact": "planning/test_exact.py",
    "adapters.snntorch.followed": "hostile/test_membrane_edits.py",
    "adapters.snntorch.living": "adapters/test_snntorch_copies.py",
    "attaching.attachment": "hostile/test_rewrapped.py",
    "attaching.batch.refusals": "hostile/test_membrane_edits.py",
    "attaching.batch.streams": "hostile/test_streams.py",
    "attaching.connection.calls": "hostile/test_sequences.py",
    "attaching.connection.connections": "integration/test_convolutions.py",
    "attaching.connection.loop": "adapters/test_norse_recurrent.py",
    "attaching.connection.pieces": "adapters/test_norse_pieces.py",
    "attaching.exact.*": "integration/test_exact_lifecycle.py",
    "attaching.exact_ends": "integration/test_exact_wrapping.py",
    "attaching.exporters": "hostile/test_exporters.py",
    "attaching.fused_parts": "wrapping/test_fused_snntorch.py",
    "attaching.history.beginnings": "hostile/states/test_whole_handed.py",
    "attaching.leftovers": "hostile/test_rewrapped.py",
    "attaching.neuron.constants": "test_time_constants.py",
    "attaching.neuron_mixins": "adapters/test_snntorch_loops.py",
    "attaching.root": "wrapping/test_interrupted_unwrap.py",
    "functional.*.torch": "functional/test_operators.py",
    "functional.delayed_convolution.spatial": "integration/test_convolutions.py",
    "functional.eager": "integration/test_compiled_sequences.py",
    "functional.engine": "engines/test_cells.py",
    "functional.event_gradients.*": "engines/test_exact.py",
    "functional.exact": "docs/test_reference.py",
    "functional.llvm.*": "functional/test_operators.py",
    "functional.recurrence.*": "functional/recurrence/test_recurrence.py",
    "functional.step_tape.*": "functional/step_tape/test_step_cells.py",
    "hardware.*": "hardware/test_hardware.py",
    "nir.*": "nir/test_round_trip.py",
    "planning.beats": "hostile/test_skipped_steps.py",
    "planning.between": "integration/test_exact_wrapping.py",
    "planning.constants": "test_time_constants.py",
    "planning.rules": "planning/test_plan.py",
    "planning.sequences": "hostile/test_said_time.py",
    "planning.timing": "hostile/test_sequences.py",
    "plotting.*": "plotting/test_plotting.py",
    "plugins.builtins": "functional/test_operators.py",
    "plugins.hookspecs": "plugins/test_registry.py",
    "plugins.records": "plugins/test_registry.py",
    "testing.adapters.*": "adapters/test_adapter_mutants.py",
    "testing.laws_*": "testing/test_conformance_kit.py",
    "testing.nets.*": "testing/test_conformance.py",
    "testing.stored": "wrapping/test_checkpoint_stored.py",
    "wrapping.apply": "integration/test_bad_input.py",
    "wrapping.checkpoint.*": "wrapping/test_checkpoint.py",
    "wrapping.discretizing": "wrapping/test_controls.py",
    "wrapping.fused.*": "wrapping/test_fused_shapes.py",
    "wrapping.projection": "wrapping/test_controls.py",
}
FILES = sorted(path.relative_to(TESTS) for path in TESTS.rglob("test_*.py"))


def imported(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse((TESTS / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def words(name: str) -> list[str]:
    return [word.rstrip("s") for word in name.split("_")]


def is_called(path: Path, module: str) -> bool:
    """Whether a test file has the module's name among the words of its own."""
    given, wanted = words(path.stem)[1:], words(module.rpartition(".")[2])
    return any(given[k : k + len(wanted)] == wanted for k in range(len(given)))


def in_its_room(path: Path, module: str) -> bool:
    room = module.split(".")[0] if "." in module else ""
    return not room or path.parts[0] == room


MODULES = sorted(
    ".".join(path.relative_to(CORE).with_suffix("").parts)
    for path in CORE.rglob("*.py") if not path.name.startswith("__init__") and "_template" not in path.parts
)  # fmt: skip
IMPORTS = {path: imported(path) for path in FILES}


def named(module: str) -> list[Path]:
    """The test files of a module's room that have its name, or import it."""
    own = [path for path in FILES if in_its_room(path, module)]
    return [path for path in own if is_called(path, module) or f"delaykit.{module}" in IMPORTS[path]]


def test_every_module_is_named_by_a_test_of_its_room_or_listed() -> None:
    bare = [m for m in MODULES if not named(m) and not any(fnmatch(m, pattern) for pattern in ELSEWHERE)]
    assert bare == []


def test_the_list_has_no_file_that_is_gone_and_nothing_that_needs_none() -> None:
    assert [file for file in ELSEWHERE.values() if Path(file) not in FILES] == []
    unnamed = [m for m in MODULES if not named(m)]
    assert [pattern for pattern in ELSEWHERE if not any(fnmatch(m, pattern) for m in unnamed)] == []


def test_every_folder_of_tests_is_a_room_of_the_core_or_says_what_it_spans() -> None:
    files = [path.relative_to(TESTS) for path in TESTS.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    folders = {file.parts[0] for file in files if len(file.parts) > 1}  # a folder that was, with old bytecode, is none
    rooms = {path.name for path in CORE.iterdir() if (path / "__init__.py").exists()}
    assert folders - set(BY_KIND) == rooms
    assert set(BY_KIND) <= folders and not rooms & set(BY_KIND)


def test_a_loose_test_file_is_of_a_module_without_a_room() -> None:
    loose = [path for path in FILES if len(path.parts) == 1]
    flat = [m for m in MODULES if "." not in m]
    assert loose and [path for path in loose if not any(is_called(path, m) for m in flat)] == []
