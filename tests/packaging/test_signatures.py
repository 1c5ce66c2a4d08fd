"""Whoever calls a public function can name what it takes and returns; so, but for a list, who calls a method."""

from __future__ import annotations

import ast
import functools
import importlib
import importlib.util
import inspect
import json
import sys
import typing
from collections import ChainMap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

PUBLIC = json.loads((Path(__file__).parent / "public_names.json").read_text(encoding="utf-8"))  # by package
INSTALLED = [name for name in PUBLIC if importlib.util.find_spec(name.partition(".")[0])]


def members(package: str) -> dict[str, Any]:
    module = importlib.import_module(package)
    return {name: getattr(module, name) for name in PUBLIC[package] if hasattr(module, name)}


@functools.cache
def public_classes() -> frozenset[type]:
    values = [value for package in INSTALLED for value in members(package).values()]
    return frozenset(value for value in values if inspect.isclass(value))


@functools.cache
def imported_for_types(module: str) -> dict[str, Any]:
    """What a module imports under ``if TYPE_CHECKING``, as far as it is installed."""
    names: dict[str, Any] = {}
    for node in ast.parse(inspect.getsource(sys.modules[module])).body:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            for line in node.body:
                try:
                    exec(ast.unparse(line), names)
                except ImportError:
                    assert isinstance(line, ast.ImportFrom) and not str(line.module).startswith("delaykit")
                    names |= {alias.asname or alias.name: Any for alias in line.names}
    return names


def classes(hint: Any) -> Iterator[type]:
    """Yield the classes that an annotation names, at any depth."""
    inside = hint if isinstance(hint, list) else typing.get_args(hint)
    if isinstance(hint, type) and not inside:
        yield hint
    for one in inside:
        yield from classes(one)


def hidden(function: Any, owner: type = object) -> set[str]:
    """Classes of delaykit in the annotations of a function that nobody outside can import by a public name.

    Fields that a class inherits are written in the words of the module that their own class is in.
    """
    module = inspect.unwrap(function).__module__
    inherited = [vars(sys.modules[cls.__module__]) for cls in owner.__mro__ if cls.__module__.startswith("delaykit")]
    names = ChainMap(vars(sys.modules[module]), imported_for_types(module), *inherited)
    hints = typing.get_type_hints(function, localns=names)
    own = [one for hint in hints.values() for one in classes(hint) if one.__module__.startswith("delaykit")]
    return {f"{one.__module__}.{one.__qualname__}" for one in own if one not in public_classes()}


@pytest.mark.parametrize("package", INSTALLED)
def test_classes_in_public_signatures_are_public(package: str) -> None:
    functions = {name: value for name, value in members(package).items() if inspect.isfunction(value)}
    assert not {name: found for name, value in functions.items() if (found := hidden(value))}


def methods(cls: type) -> Iterator[Any]:
    """Yield the functions that a class itself defines: methods, properties, and how it is made."""
    for name, value in vars(cls).items():
        function = value.fget if isinstance(value, property) else getattr(value, "func", value)
        function = getattr(function, "__func__", function)
        if inspect.isfunction(function) and (name == "__init__" or not name.startswith("_")):
            yield function


IN_METHODS = {  # classes without a public name that methods of public classes hand over; the list may only shrink
    # what delaykit's own rooms tell each other beside a module
    "delaykit.attaching.batch.membranes.LeftMembrane",
    "delaykit.attaching.history.beats.Beat",
    "delaykit.attaching.history.beginnings.Beginnings",
    "delaykit.attaching.history.carried_run.CarriedRun",
    "delaykit.attaching.history.connection_history.Moment",
    "delaykit.attaching.history.dropped_entries.DroppedEntries",
    "delaykit.attaching.scope.RootScope",
    "delaykit.attaching.wiring.Wrapping",
    "delaykit.wrapping.fused.run.Layout",
    # rows of what is read or printed
    "delaykit.planning.plan.SitePlan",
    "delaykit.planning.time_constants.ConstantsPlan",
    "delaykit.testing.nets.reference.Layer",
    "delaykit.testing.nets.reference.ReferenceRun",
    "delaykit.wrapping.controls.SiteStatus",
    "delaykit_delrec.dcls.DCLSDelay",
    "delaykit_hetsyn.layer.State",
    "delaykit_lab.comparison.rows.Row",
    "delaykit_lab.methods.Method",
    "delaykit_lab.models.networks.ModelSpec",
    "delaykit_lab.tasks.match_to_sample.Trials",
    "delaykit_lab.tasks.mnist.ImageSplits",
    "delaykit_lab.tasks.pattern_generation.Pattern",
    "delaykit_lab.tasks.volleys.Volleys",
    "delaykit_lab.tasks.yin_yang.PointSplits",
}


def test_no_more_classes_in_public_methods_are_without_a_public_name() -> None:
    own = [cls for cls in public_classes() if cls.__module__.startswith("delaykit")]
    found = {name for cls in own for method in methods(cls) for name in hidden(method, cls)}
    there = {name for name in IN_METHODS if importlib.util.find_spec(name.partition(".")[0])}
    assert found == there and len(own) > 100


def test_a_class_that_is_not_public_is_found_at_any_depth() -> None:
    def lists(values: Any) -> None: ...

    owner = type("Owner", (), {"__module__": "delaykit.functional.dispatch"})
    lists.__annotations__["values"] = list[tuple[owner, int]] | None  # type: ignore[valid-type]
    assert hidden(lists) == {"delaykit.functional.dispatch.Owner"}
