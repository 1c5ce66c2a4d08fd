"""Whoever calls a public function can name what it takes and returns."""

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


def hidden(function: Any) -> set[str]:
    """Classes of delaykit in the annotations of a function that nobody outside can import by a public name."""
    module = inspect.unwrap(function).__module__
    names = ChainMap(vars(sys.modules[module]), imported_for_types(module))
    hints = typing.get_type_hints(function, localns=names)
    own = [one for hint in hints.values() for one in classes(hint) if one.__module__.startswith("delaykit")]
    return {f"{one.__module__}.{one.__qualname__}" for one in own if one not in public_classes()}


@pytest.mark.parametrize("package", INSTALLED)
def test_classes_in_public_signatures_are_public(package: str) -> None:
    functions = {name: value for name, value in members(package).items() if inspect.isfunction(value)}
    assert not {name: found for name, value in functions.items() if (found := hidden(value))}


def test_a_class_that_is_not_public_is_found_at_any_depth() -> None:
    def lists(values: Any) -> None: ...

    owner = type("Owner", (), {"__module__": "delaykit.functional.dispatch"})
    lists.__annotations__["values"] = list[tuple[owner, int]] | None  # type: ignore[valid-type]
    assert hidden(lists) == {"delaykit.functional.dispatch.Owner"}
