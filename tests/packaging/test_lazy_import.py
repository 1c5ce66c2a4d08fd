"""``import delaykit`` and ``delaykit --help`` stay light: no torch, nothing imported before it is used."""

from __future__ import annotations

import importlib
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

import delaykit
from delaykit.names import OFFICIAL
from tests.packaging.official_plugins import PLUGINS, said_by

HEAVY = {"torch", "numpy", "pluggy", "click", "rich", "numba", "snntorch", "norse", "matplotlib", "safetensors"}


def loaded_after(code: str, *arguments: str) -> set[str]:
    """Top-level modules that a fresh interpreter has imported after ``code``."""
    report = "\nimport sys; sys.stderr.write('LOADED ' + ' '.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code + report, *arguments], capture_output=True, text=True, check=True, timeout=60
    )
    return {name.partition(".")[0] for name in done.stderr.rpartition("LOADED ")[2].split()}


def test_import_delaykit_imports_nothing_heavy() -> None:
    assert "delaykit" in loaded_after("import delaykit; dir(delaykit); delaykit.__version__")
    assert not HEAVY & loaded_after("import delaykit; dir(delaykit); delaykit.__version__")


def test_import_delaykit_adds_few_modules() -> None:
    # A count stands for the time, which a busy machine cannot measure: 60 ms are about 150 small modules.
    added = loaded_after("import delaykit") - loaded_after("import importlib, typing")
    assert len(added) < 10, sorted(added)


def test_names_for_entry_modules_import_no_torch() -> None:
    loaded = loaded_after("from delaykit import hookimpl, Component, API_VERSION, PluginError, citation")
    assert "pluggy" in loaded and not {"torch", "numpy", "click"} & loaded


@pytest.mark.skipif(not importlib.util.find_spec("click"), reason="the extra `cli` is not installed here")
@pytest.mark.parametrize("arguments", [("--help",), ("--version",), ("plugins",), ("plugins", "--json")])
def test_help_and_listings_import_no_torch_with_every_installed_plugin(arguments: tuple[str, ...]) -> None:
    code = "from delaykit.__main__ import main\ntry: main()\nexcept SystemExit as stop: assert not stop.code, stop.code"
    loaded = loaded_after(code, *arguments)
    assert "click" in loaded and not {"torch", "numpy", "matplotlib"} & loaded


@pytest.mark.parametrize("name", delaykit.__all__)
def test_every_public_name_resolves(name: str) -> None:
    assert getattr(delaykit, name) is not None
    assert name in dir(delaykit)


def test_unknown_names_are_attribute_errors_that_help(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("delaykit.names.importable", lambda plugin: False)
    with pytest.raises(AttributeError, match="pip install delaykit-delrec`, then `from delaykit_delrec import DelRec"):
        delaykit.DelRec  # noqa: B018
    with pytest.raises(AttributeError, match="then `from delaykit_timing import MultiSpikeLIF, "):
        delaykit.Timing  # noqa: B018
    with pytest.raises(AttributeError, match="did you mean 'unwrap_'"):
        delaykit.unwrap  # noqa: B018
    with pytest.raises(ImportError):
        exec("from delaykit import nothing_like_this")
    assert not hasattr(delaykit, "__wrapped__")
    monkeypatch.setattr("delaykit.names.importable", lambda plugin: True)
    with pytest.raises(AttributeError, match="attribute 'DelRec'; `from delaykit_delrec import DelRec`"):
        delaykit.DelRec  # noqa: B018


@pytest.mark.parametrize("plugin", OFFICIAL)
def test_what_is_said_of_plugins_is_what_they_export(plugin: str) -> None:
    package = pytest.importorskip(f"delaykit_{plugin}", reason=f"needs the plugin delaykit-{plugin}")
    entry = importlib.import_module(f"delaykit_{plugin}.plugin")
    components, public = OFFICIAL[plugin]
    records = list(entry.delaykit_components())
    assert sorted(components) == sorted(record.name for record in records)
    assert {record.config.rpartition(":")[2] for record in records} <= set(public) <= set(package.__all__)
    assert public and not set(public) & set(delaykit.__all__)


@pytest.mark.parametrize("plugin", PLUGINS)
def test_what_is_known_of_a_plugin_is_what_it_says_of_itself(plugin: str) -> None:
    pytest.importorskip(f"delaykit_{plugin}", reason=f"needs the plugin delaykit-{plugin}")
    known = json.loads((Path(delaykit.__file__).parent / "official.json").read_text(encoding="utf-8"))
    assert known[plugin] == said_by(plugin), "run python tests/packaging/official_plugins.py"


def test_star_import_gives_the_public_names() -> None:
    names: dict[str, object] = {}
    exec("from delaykit import *", names)
    assert set(delaykit.__all__) <= set(names)
