"""The rooms of tests mirror those of delaykit: every module of the core is named by a test file of its room.

A test file names a module by its own name, ``test_clocks.py`` for ``attaching/clocks.py``, or by importing it. Modules
that are tested as part of a whole are listed in ``ELSEWHERE`` with the file that does so.
"""

from __future__ import annotations

import ast
import functools
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
    "adapters.norse.time_constants": "test_time_constants.py",
    "adapters.norse.dynamics": "functional/recurrence/test_recurrence_libraries.py",
    "adapters.norse.exact_gradients": "planning/test_exact_gradients.py",
    "adapters.snntorch.time_constants": "test_time_constants.py",
    "adapters.snntorch.exact_gradients": "planning/test_exact_gradients.py",
    "adapters.snntorch.reset_watch": "hostile/test_membrane_edits.py",
    "adapters.snntorch.instances": "adapters/test_snntorch_copies.py",
    "attaching.attachment": "hostile/test_rewrapped.py",
    "attaching.batch.asked_resets": "hostile/states/test_resets_of_others.py",
    "attaching.batch.moved_and_edited": "hostile/states/test_moved_and_edited.py",
    "attaching.batch.older_membranes": "hostile/states/test_older_sequences.py",
    "attaching.batch.refusals": "hostile/test_membrane_edits.py",
    "attaching.batch.streams": "hostile/test_streams.py",
    "attaching.connection.calls": "hostile/test_sequences.py",
    "attaching.connection.mixins": "integration/test_convolutions.py",
    "attaching.connection.products": "integration/test_convolutions.py",
    "attaching.connection.loop": "adapters/test_norse_recurrent.py",
    "attaching.connection.pieces": "adapters/test_norse_pieces.py",
    "attaching.exact_gradients.currents": "integration/test_exact_lifecycle.py",
    "attaching.exact_gradients.listening_neuron": "integration/test_exact_wrapping.py",
    "attaching.exporters": "hostile/test_exporters.py",
    "attaching.fused_parts": "wrapping/test_fused_snntorch.py",
    "attaching.history.beats": "hostile/test_skipped_steps.py",
    "attaching.history.dropped_entries": "hostile/states/test_dropped_entries.py",
    "attaching.history.connection_states": "adapters/test_norse_pieces.py",
    "attaching.history.beginnings": "hostile/states/test_whole_handed.py",
    "attaching.history.lines": "hostile/test_long_delays.py",
    "attaching.history.told_changes": "hostile/test_membrane_edits.py",
    "attaching.leftovers": "hostile/test_rewrapped.py",
    "attaching.neuron.time_constants": "test_time_constants.py",
    "attaching.neuron.reported_numbers": "adapters/test_wrong_numbers.py",
    "attaching.neuron_mixins": "adapters/test_snntorch_loops.py",
    "attaching.neuron_reading": "adapters/test_wrong_answers.py",
    "attaching.root": "wrapping/test_interrupted_unwrap.py",
    "functional.decay_tape.torch": "functional/test_operators.py",
    "functional.delay_line.torch": "functional/test_operators.py",
    "functional.delayed_convolution.spatial": "integration/test_convolutions.py",
    "functional.delayed_linear.torch": "functional/test_operators.py",
    "functional.eager": "integration/test_compiled_sequences.py",
    "functional.engine_base": "engines/test_cells.py",
    "functional.event_gradients.rule": "engines/test_exact_gradients.py",
    "functional.exact": "docs/test_reference.py",
    "functional.leaky_step.torch": "functional/test_operators.py",
    "functional.llvm.adjacent_taps": "functional/test_delay_line.py",
    "functional.llvm.polynomials": "functional/step_tape/test_step_cells.py",
    "functional.llvm.recurrence.reading_ahead": "functional/recurrence/test_recurrence_llvm.py",
    "functional.llvm.recurrence.two_step_gradients": "functional/recurrence/test_recurrence_llvm.py",
    "functional.llvm.recurrence.pairs": "functional/recurrence/test_recurrence_llvm.py",
    "functional.llvm.recurrence.vector": "functional/recurrence/test_recurrence_llvm.py",
    "functional.llvm.recurrence.windows": "functional/recurrence/test_recurrence_llvm.py",
    "functional.llvm.registers": "functional/test_event_product.py",
    "functional.llvm.rows.dots": "functional/test_event_product.py",
    "functional.llvm.rows.layout": "functional/test_event_product.py",
    "functional.recurrence.adjoint": "functional/recurrence/test_recurrence.py",
    "functional.recurrence.connection.gradients": "functional/recurrence/test_recurrence.py",
    "functional.recurrence.connection.taps": "functional/recurrence/test_recurrence.py",
    "functional.recurrence.dense_responses": "functional/recurrence/test_recurrence.py",
    "functional.recurrence.step_loop": "functional/recurrence/test_recurrence.py",
    "functional.recurrence.neuron.base": "functional/recurrence/test_recurrence.py",
    "functional.recurrence.neuron.rows": "functional/recurrence/test_recurrence.py",
    "functional.recurrence.state": "functional/recurrence/test_recurrence.py",
    "functional.step_tape.cells.bells": "functional/step_tape/test_step_cells.py",
    "functional.step_tape.cells.kernels": "functional/step_tape/test_step_cells.py",
    "functional.step_tape.cells.reading": "functional/step_tape/test_step_cells.py",
    "functional.step_tape.packing": "functional/step_tape/test_step_tape.py",
    "functional.step_tape.segment_operators": "functional/step_tape/test_step_tape.py",
    "functional.step_tape.segment": "functional/step_tape/test_step_tape.py",
    "functional.step_tape.torch": "functional/test_operators.py",
    "hardware.fitting": "hardware/test_hardware.py",
    "hardware.targets": "hardware/test_hardware.py",
    "nir.building": "nir/test_round_trip.py",
    "nir.calling": "nir/test_inputs.py",
    "nir.checking": "nir/test_hostile_graphs.py",
    "nir.delay_nodes": "nir/test_round_trip.py",
    "nir.modules": "nir/test_round_trip.py",
    "nir.network": "nir/test_round_trip.py",
    "nir.observing": "nir/test_circles.py",
    "nir.proving": "nir/test_outputs.py",
    "nir.values": "nir/test_hostile_graphs.py",
    "nir.writing": "nir/test_round_trip.py",
    "planning.beats": "hostile/test_skipped_steps.py",
    "planning.between.products": "hostile/test_computed_weights.py",
    "planning.modules_between": "integration/test_exact_wrapping.py",
    "planning.time_constants": "test_time_constants.py",
    "planning.rules": "planning/test_plan.py",
    "planning.sequences": "hostile/test_said_time.py",
    "planning.timing": "hostile/test_sequences.py",
    "plotting.charts": "plotting/test_plotting.py",
    "plotting.theme": "plotting/test_plotting.py",
    "plugins.builtins": "functional/test_operators.py",
    "plugins.hookspecs": "plugins/test_registry.py",
    "plugins.records": "plugins/test_registry.py",
    "testing.adapters.laws_delays": "adapters/test_adapter_mutants.py",
    "testing.adapters.laws_neurons": "adapters/test_adapter_mutants.py",
    "testing.adapters.laws_wrapping": "adapters/test_adapter_mutants.py",
    "testing.adapters.library_net": "adapters/test_adapter_mutants.py",
    "testing.faults.second_derivatives": "functional/test_derivatives.py",
    "testing.laws_config": "testing/test_conformance_kit.py",
    "testing.laws_network": "testing/test_conformance_kit.py",
    "testing.laws_operator": "testing/test_conformance_kit.py",
    "testing.laws_pruning": "testing/test_conformance_kit.py",
    "testing.laws_training": "testing/test_conformance_kit.py",
    "testing.nets.norse": "testing/test_conformance.py",
    "testing.nets.reference": "testing/test_conformance.py",
    "testing.nets.snntorch": "testing/test_conformance.py",
    "testing.nets.snntorch_synaptic": "testing/test_conformance.py",
    "testing.stored_checkpoints": "wrapping/test_checkpoint_stored.py",
    "wrapping.apply": "integration/test_bad_input.py",
    "wrapping.checkpoint.size_limit": "wrapping/test_checkpoint_damage.py",
    "wrapping.checkpoint.time_constants_json": "wrapping/test_checkpoint.py",
    "wrapping.checkpoint.container": "wrapping/test_checkpoint_damage.py",
    "wrapping.checkpoint.format_1": "wrapping/test_checkpoint.py",
    "wrapping.checkpoint.plan_json": "wrapping/test_checkpoint.py",
    "wrapping.checkpoint.preconditions": "wrapping/test_checkpoint_places.py",
    "wrapping.checkpoint.prunings": "wrapping/test_checkpoint.py",
    "wrapping.checkpoint.save_load": "wrapping/test_checkpoint.py",
    "wrapping.discretizing": "wrapping/test_controls.py",
    "wrapping.fused.evaluate": "wrapping/test_fused_shapes.py",
    "wrapping.fused.finding": "wrapping/test_fused_loop.py",
    "wrapping.fused.graph": "wrapping/test_fused_shapes.py",
    "wrapping.fused.held": "wrapping/test_fused_norse.py",
    "wrapping.fused.model": "wrapping/test_fused_snntorch.py",
    "wrapping.fused.program": "wrapping/test_fused_snntorch.py",
    "wrapping.fused.proof": "wrapping/test_fused_changes.py",
    "wrapping.fused.recipe": "wrapping/test_fused_shapes.py",
    "wrapping.fused.run": "wrapping/test_fused_hostile.py",
    "wrapping.fused.tracks": "wrapping/test_fused_norse.py",
    "wrapping.fused.watch": "wrapping/test_fused_hostile.py",
    "wrapping.optimizer_hooks": "wrapping/test_controls.py",
}
FILES = sorted(path.relative_to(TESTS) for path in TESTS.rglob("test_*.py"))


@functools.cache
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


def named(module: str) -> list[Path]:
    """The test files of a module's room that have its name, or import it."""
    own = [path for path in FILES if in_its_room(path, module)]
    return [path for path in own if is_called(path, module) or f"delaykit.{module}" in imported(path)]


def test_every_module_is_named_by_a_test_of_its_room_or_listed() -> None:
    assert [m for m in MODULES if not named(m) and m not in ELSEWHERE] == []


def test_the_list_has_no_file_that_is_gone_and_nothing_that_needs_none() -> None:
    assert [file for file in ELSEWHERE.values() if Path(file) not in FILES] == []
    assert [m for m in ELSEWHERE if m not in MODULES or named(m)] == []


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
