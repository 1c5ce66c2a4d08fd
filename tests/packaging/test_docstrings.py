"""Every public class, function and method says what it does; an overriding method may inherit its description."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import pkgutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


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
