"""Reference pages: every public name of the core, of its rooms and of each plugin stands on one."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import json
import re
from pathlib import Path

import pytest

import delaykit

ROOT = Path(__file__).parents[2]
PAGES = "\n".join(page.read_text() for page in sorted((ROOT / "docs" / "reference").glob("*.md")))
SHOWN = set(re.findall(r"^\.\. (?:auto(?:module|class|function)|py:data):: (\S+)$", PAGES, re.MULTILINE))
PACKAGES = ["delaykit", *sorted(path.name for path in ROOT.glob("plugins/*/src/delaykit_*"))]
OPERATORS = [f"delaykit.functional.{name}" for name in importlib.import_module("delaykit.functional").__all__]
ROOMS = ["arrivals", "functional", "hardware", "kernels", "nir", "plotting", "testing"]
LISTED = json.loads((ROOT / "tests" / "packaging" / "public_names.json").read_text(encoding="utf-8"))
PICTURES = [f"{path.parent.name}.plotting" for path in sorted(ROOT.glob("plugins/*/src/delaykit_*/plotting.py"))]


def public(module):
    """What is in ``__all__``; without one, what the module itself defines."""
    if hasattr(module, "__all__"):
        return {name: find(module, name) for name in module.__all__}
    own = {name: value for name, value in vars(module).items() if not name.startswith("_")}
    return {name: value for name, value in own.items() if getattr(value, "__module__", None) == module.__name__}


def find(module, name):
    try:
        return getattr(module, name)
    except AttributeError:  # a room that nobody has entered
        return importlib.import_module(f"{module.__name__}.{name}")


def stands_on_a_page(package, name, value):
    if inspect.ismodule(value):
        return value.__name__ in SHOWN
    homes = {f"{package}.{name}", package if "__all__" not in vars(importlib.import_module(package)) else ""}
    if inspect.isclass(value) or inspect.isfunction(inspect.unwrap(value)):  # a cached function is another object
        homes |= {f"{value.__module__}.{value.__qualname__}", value.__module__}
        homes.add(f"{package}.{value.__qualname__}")  # a former name stands where the present one does
        homes |= {f"delaykit.{name}"} if getattr(delaykit, name, None) is value else set()
    return homes & SHOWN


def test_all_plugins_are_looked_at():
    assert len(PACKAGES) >= 9 and len(SHOWN) > 80


@pytest.mark.parametrize("package", [*PACKAGES, *(f"delaykit.{room}" for room in ROOMS), *OPERATORS, *PICTURES])
def test_every_public_name_is_in_the_reference(package):
    pytest.importorskip(package.partition(".")[0], reason="needs the plugin of that page")
    module = importlib.import_module(package)
    names = public(module)
    former = ("delaykit.functional.exact", "delaykit.functional.engine")  # former places, of names that are elsewhere
    assert names or package in former
    assert not [name for name, value in names.items() if not stands_on_a_page(package, name, value)]


def test_every_number_and_tuple_of_adapters_is_in_the_reference():
    module = importlib.import_module("delaykit.adapters")
    values = {name: getattr(module, name) for name in module.__all__}
    data = [name for name, value in values.items() if not (inspect.isclass(value) or inspect.isroutine(value))]
    assert {"ADAPTER_API", "CONVOLUTIONS", "LOOP"} <= set(data)
    assert not [name for name in data if f"delaykit.adapters.{name}" not in SHOWN]


@pytest.mark.parametrize("package", [name for name in LISTED if name.partition(".")[0] == "delaykit"])
def test_every_listed_name_is_in_the_reference(package):
    """Numbers and words stand beside what they are for."""
    module = importlib.import_module(package)
    shown = module.__all__ if package in SHOWN and hasattr(module, "__all__") else ()
    values = {name: find(module, name) for name in LISTED[package] if name not in shown}
    values = {name: value for name, value in values.items() if inspect.isclass(value) or inspect.isfunction(value)}
    assert not [name for name, value in values.items() if not stands_on_a_page(package, name, value)]


def is_there(name):
    try:
        if importlib.util.find_spec(name) is not None:
            return True
    except ModuleNotFoundError:  # what it is in is no package
        pass
    home, _, last = name.rpartition(".")
    return hasattr(importlib.import_module(home), last)


def test_every_module_named_is_there():
    for name in SHOWN:
        parts = name.split(".")
        if parts[0] != "delaykit":
            pytest.importorskip(parts[0], reason="needs the plugin of that page")
        assert is_there(name), name
