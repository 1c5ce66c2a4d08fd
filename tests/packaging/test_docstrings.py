"""Every public class, function and method says what it does; an overriding method may inherit its description."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import json
import pkgutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PUBLIC = json.loads((Path(__file__).parent / "public_names.json").read_text(encoding="utf-8"))


def public_modules() -> list[str]:
    """Modules of the core and of the plugins in the tree, without private ones."""
    plugins = [path.name for path in sorted(ROOT.glob("plugins/*/src/delaykit_*")) if path.is_dir()]
    packages = ["delaykit", *(name for name in plugins if importlib.util.find_spec(name))]
    names = []
    for package in packages:
        found = importlib.import_module(package)
        walked = (info.name for info in pkgutil.walk_packages(found.__path__, f"{package}."))
        names += [name for name in (package, *walked) if not any(part.startswith("_") for part in name.split("."))]
    return names


@pytest.mark.parametrize("name", public_modules())
def test_public_names_are_documented(name: str) -> None:
    if name.endswith(".triton") and importlib.util.find_spec("triton") is None:
        pytest.skip("imports Triton, which is for Linux only")
    module = importlib.import_module(name)
    missing = [] if inspect.getdoc(module) else [name]
    for attribute, value in list(vars(module).items()):
        if attribute.startswith("_") or getattr(value, "__module__", None) != name:
            continue
        if inspect.isfunction(value) and not inspect.getdoc(value):
            missing.append(f"{name}.{attribute}")
        if inspect.isclass(value):
            if not inspect.getdoc(value):
                missing.append(f"{name}.{attribute}")
            missing += [
                f"{name}.{attribute}.{method}"
                for method, member in list(vars(value).items())
                if not method.startswith("_")
                and isinstance(member, (property, classmethod, staticmethod)) | inspect.isfunction(member)
                and not inspect.getdoc(getattr(value, method))
            ]
    assert missing == []


@pytest.mark.parametrize("name", PUBLIC)
def test_public_functions_say_what_their_arguments_are(name: str) -> None:
    if name.startswith("delaykit_"):
        pytest.importorskip(name.partition(".")[0], reason="is a distribution of its own")
    module = importlib.import_module(name)
    functions = {one: getattr(module, one, None) for one in PUBLIC[name]}
    taking = {one: f for one, f in functions.items() if inspect.isfunction(f) and inspect.signature(f).parameters}
    assert [one for one, f in taking.items() if "\nArgs:\n" not in (inspect.getdoc(f) or "")] == []


def test_functions_of_the_door_are_among_them() -> None:
    door = importlib.import_module("delaykit.adapters")
    assert {"follow_", "keep_"} < {one for one in PUBLIC["delaykit.adapters"] if inspect.isfunction(getattr(door, one))}
