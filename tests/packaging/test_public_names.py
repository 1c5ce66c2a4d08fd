"""What was public once can be imported.

A name that has to go leaves ``public_names.json`` when its warning has been out for a minor version.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import json
import warnings
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PUBLIC = json.loads((Path(__file__).parent / "public_names.json").read_text(encoding="utf-8"))  # by package
SOURCES = sorted(ROOT.glob("plugins/*/src/**/*.py"))


@pytest.mark.parametrize("package", PUBLIC)
def test_names_that_were_public_can_be_imported(package: str) -> None:
    if package.startswith("delaykit_"):
        pytest.importorskip(package.partition(".")[0], reason="is a distribution of its own")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        exec(f"from {package} import {', '.join(PUBLIC[package])}", {})


@pytest.mark.parametrize("package", PUBLIC)
def test_what_a_module_says_is_public_is_on_the_list_and_the_other_way_round(package: str) -> None:
    if package.startswith("delaykit_"):
        pytest.importorskip(package.partition(".")[0], reason="is a distribution of its own")
    said = getattr(importlib.import_module(package), "__all__", None)
    if said is not None:  # numbers may be there for who imports them by name
        assert sorted(said) == sorted(name for name in PUBLIC[package] if name in said or not name.isupper())


def test_the_list_is_of_all_distributions() -> None:
    plugins = {path.name for path in ROOT.glob("plugins/*/src/delaykit_*")}
    assert {"delaykit", "delaykit.functional", "delaykit.testing", "delaykit.kernels", *plugins} <= set(PUBLIC)


SEVERAL = {"attach", "param_groups", "rollout"}  # one meaning wherever they stand, as CONTRIBUTING.md says


def test_a_public_class_or_function_has_its_name_to_itself() -> None:
    """One word, one thing: former names, which stand for a thing of another name, are none."""
    named: dict[str, set[object]] = {}
    for package in PUBLIC:
        if package.startswith("delaykit_"):
            pytest.importorskip(package.partition(".")[0], reason="is a distribution of its own")
        module = importlib.import_module(package)
        for name in PUBLIC[package]:
            value = getattr(module, name, None)
            if callable(value) and getattr(value, "__name__", "") == name:
                named.setdefault(name, set()).add(value)
    assert len(named) > 100
    assert {name for name, found in named.items() if len(found) > 1} == SEVERAL


def is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # what it would be in is no package
        return False


def taken_from_the_core(text: str) -> set[tuple[str, str]]:
    """Every (module, name) of the core that a source imports; (module, "") where it imports a module whole."""
    taken: set[tuple[str, str]] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            taken |= {(alias.name, "") for alias in node.names if alias.name.partition(".")[0] == "delaykit"}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "delaykit":
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                taken.add((inner, "") if is_module(inner) else (node.module or "", alias.name))
    return taken


def unlisted(text: str) -> set[tuple[str, str]]:
    return {(a, b) for a, b in taken_from_the_core(text) if a not in PUBLIC or (b and b not in PUBLIC[a])}


def test_what_plugins_import_is_public() -> None:
    """A name that they need and that is not listed goes onto the list, and onto a page, or they do without."""
    assert len(SOURCES) > 100
    missing = {path.relative_to(ROOT).as_posix(): unlisted(path.read_text(encoding="utf-8")) for path in SOURCES}
    assert {path: names for path, names in missing.items() if names} == {}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("import delaykit as dk", set()),
        ("from delaykit import checks", set()),
        ("from delaykit.synapse import Engine", set()),
        ("from delaykit.synapse import MEMORY", {("delaykit.synapse", "MEMORY")}),
        ("from delaykit import names", {("delaykit.names", "")}),
        ("import delaykit.wrapping.root", {("delaykit.wrapping.root", "")}),
        ("def f():\n    from delaykit.attaching.root import RootCall", {("delaykit.attaching.root", "RootCall")}),
    ],
)
def test_the_test_finds_what_is_not(text: str, expected: set[tuple[str, str]]) -> None:
    assert unlisted(text) == expected


def test_contributing_names_every_public_module() -> None:
    contributing = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    promise = contributing.partition("## Names that go")[2].partition("\n## ")[0]
    core = [name for name in PUBLIC if name.partition(".")[0] == "delaykit"]
    assert [name for name in core if f"`{name}`" not in promise] == []
