"""What an installation owes, from the source tree and from wheels alike: versions agree, entry points resolve."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import subprocess
import sys

import pytest

import delaykit
from delaykit.plugins import registry
from delaykit.plugins.loader import CORE, GROUP, installed_sources

LIBRARIES = {"snntorch": "snntorch", "norse": "norse"}


def test_version_of_the_distribution_is_the_version_of_the_module() -> None:
    assert importlib.metadata.version("delaykit") == delaykit.__version__


def test_expected_plugins_are_installed() -> None:
    """``DELAYKIT_EXPECT`` names what a clean environment should hold, and nothing else."""
    expected = os.environ.get("DELAYKIT_EXPECT")
    names = sorted(source.name for source in installed_sources())
    assert expected is None or names == sorted(expected.split(",") if expected else [])


def test_every_installed_plugin_loads() -> None:
    broken = {status.name: status.traceback for status in registry.loader().statuses if status.state != "ok"}
    assert broken == {}


def test_every_plugin_has_the_minor_version_of_the_core() -> None:
    core = delaykit.__version__.split(".")[:2]
    official = {e.dist.name: e.dist.version for e in importlib.metadata.entry_points(group=GROUP) if e.dist}
    assert {name: version for name, version in official.items() if version.split(".")[:2] != core} == {}


@pytest.mark.parametrize("key", sorted(registry.loader().components), ids="-".join)
def test_every_component_resolves(key: tuple[str, str]) -> None:
    library = LIBRARIES.get(key[1]) if key[0] == "adapter" else None
    if library and importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is an optional extra and not installed here")
    cls = registry.resolve(*key)
    assert isinstance(cls, type)
    if key[0] in ("delay", "heterogeneity", "pruning"):
        assert issubclass(cls, delaykit.ComponentConfig)
        assert (cls.kind, cls.name) == key


def test_names_the_core_registers_are_those_of_the_builtin_plugin() -> None:
    assert ("delay", "free") in registry.loader().components
    assert registry.loader().status(CORE).state == "ok"


def test_the_console_script_tells_its_version_and_names_the_extra_that_the_rest_needs() -> None:
    run = subprocess.run([sys.executable, "-m", "delaykit", "--version"], capture_output=True, text=True, timeout=60)
    assert (run.returncode, run.stdout.splitlines()[0].split()[-1]) == (0, delaykit.__version__)
    if not (importlib.util.find_spec("click") and importlib.util.find_spec("rich")):
        assert "pip install 'delaykit[cli]'" in run.stdout
        words = [sys.executable, "-m", "delaykit", "plugins"]
        other = subprocess.run(words, capture_output=True, text=True, timeout=60)
        assert other.returncode == 1 and "Traceback" not in other.stderr
        assert "pip install 'delaykit[cli]'" in other.stderr
