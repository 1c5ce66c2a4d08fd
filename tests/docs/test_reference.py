"""Reference pages: every public class and function of the core and of each plugin stands on one."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = "\n".join(page.read_text() for page in sorted((ROOT / "docs" / "reference").glob("*.md")))
SHOWN = set(re.findall(r"^\.\. auto(?:module|class|function):: (\S+)$", PAGES, re.MULTILINE))
PACKAGES = ["delaykit", *sorted(path.name for path in ROOT.glob("plugins/*/src/delaykit_*"))]


def stands_on_a_page(package, name, value):
    whole = f"{value.__module__}.{value.__qualname__}"
    return {f"{package}.{name}", whole, value.__module__} & SHOWN


def test_all_plugins_are_looked_at():
    assert len(PACKAGES) == 9 and len(SHOWN) > 80


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_class_and_function_is_in_the_reference(package):
    pytest.importorskip(package)
    module = importlib.import_module(package)
    public = {name: getattr(module, name) for name in module.__all__}
    public = {n: v for n, v in public.items() if inspect.isclass(v) or inspect.isfunction(v)}
    assert public
    assert not [name for name, value in public.items() if not stands_on_a_page(package, name, value)]


def test_every_module_named_is_there():
    for name in SHOWN:
        parts = name.split(".")
        if parts[0] != "delaykit":
            pytest.importorskip(parts[0])
        assert any(importlib.util.find_spec(".".join(parts[:k])) for k in (len(parts), len(parts) - 1) if k), name
