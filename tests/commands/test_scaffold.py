"""``delaykit new`` writes a plugin that imports, registers, builds and passes its own laws."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import delaykit
from delaykit import ConfigError
from delaykit.commands.scaffold import create
from delaykit.plugins.loader import PluginLoader, PluginSource

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

NAME = "drawn_late"
ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A fresh plugin, importable while the test runs."""
    made = create(NAME, tmp_path)
    monkeypatch.syspath_prepend(str(made / "src"))
    yield made
    for module in [name for name in sys.modules if name.partition(".")[0] == f"delaykit_{NAME}"]:
        del sys.modules[module]


def test_the_folder_is_a_complete_distribution(folder: Path) -> None:
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    package = f"src/delaykit_{NAME}"
    assert files == {
        "pyproject.toml",
        "README.md",
        "CHANGELOG.md",
        "LICENSE",
        *(f"{package}/{name}.py" for name in ("__init__", "plugin", "config", "delay")),
        f"{package}/py.typed",
        "tests/test_laws.py",
        "tests/test_config.py",
    }
    for path in folder.rglob("*.*"):
        if path.is_file():
            text = path.read_text(encoding="utf-8")
            assert "${" not in text and "NAME" not in text, path
    assert folder.name == "delaykit-drawn-late"
    assert f'{NAME} = "delaykit_{NAME}.plugin"' in (folder / "pyproject.toml").read_text(encoding="utf-8")


def test_it_registers_and_builds(folder: Path) -> None:
    entry = PluginSource(NAME, lambda: importlib.import_module(f"delaykit_{NAME}.plugin"), folder.name)
    loader = PluginLoader([entry], {})
    assert loader.status(NAME).state == "ok", loader.status(NAME).traceback
    module, _, cls = loader.components["delay", NAME].config.partition(":")
    config = getattr(importlib.import_module(module), cls)(start=2.0)
    delay = config.build(delaykit.Site("fc", pre=3, post=2))
    weight = torch.arange(6.0).reshape(2, 3)
    torch.testing.assert_close(delay.impulse_response(weight)[..., 2], weight)


def test_its_entry_module_imports_no_torch(folder: Path) -> None:
    code = f"import sys, delaykit_{NAME}.plugin as p; list(p.delaykit_components()); print('torch' in sys.modules)"
    environ = {"PYTHONPATH": str(folder / "src")}
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "False", done.stdout + done.stderr


def test_its_code_passes_the_linter(folder: Path) -> None:
    ruff = [sys.executable, "-m", "ruff", "check", "--isolated", "--select", "E,F,I,UP,B,D1", "--line-length", "120"]
    done = subprocess.run(
        [*ruff, "--ignore", "D105,D107", "src"], cwd=folder, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout


def test_it_is_licensed_and_typed_as_every_distribution_is(folder: Path) -> None:
    project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["license"] == "MIT" and project["license-files"] == ["LICENSE"]
    assert "Typing :: Typed" in project["classifiers"]
    licence = (folder / "LICENSE").read_text(encoding="utf-8")
    assert licence.startswith("MIT License\n\nCopyright (c) 20") and f"The authors of {folder.name}\n" in licence
    assert licence.splitlines()[4:] == (ROOT / "LICENSE").read_text(encoding="utf-8").splitlines()[4:]


@pytest.mark.parametrize("name", ["", "9", "My_delay", "my-delay", "my delay", "_x", "a__b", "class", "../up", "é"])
def test_bad_names_are_refused_before_anything_is_written(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="lower case letters"):
        create(name, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_taken_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="already"):
        create("delrec", tmp_path, taken={"delrec"})


def test_an_existing_folder_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "delaykit-mine").mkdir()
    (tmp_path / "delaykit-mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigError, match="already there"):
        create("mine", tmp_path)
    assert [path.name for path in tmp_path.rglob("*")] == ["delaykit-mine", "thesis.txt"]


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written.*another --directory"):
        create("mine", tmp_path / "file")


def test_the_requirement_of_a_plugin_ends_at_the_next_minor_version(folder: Path) -> None:
    text = (folder / "pyproject.toml").read_text()
    major, minor = delaykit.__version__.split(".")[:2]
    assert f'"delaykit>={major}.{minor},<{major}.{int(minor) + 1}"' in text
    for words in ("keywords = [", "classifiers = [", "snntorch = [", "norse = ["):
        assert words in text


def test_nothing_that_is_written_uses_a_former_name(tmp_path: Path) -> None:
    folder = create("fresh", tmp_path)
    text = "".join(path.read_text() for path in folder.rglob("*") if path.is_file())
    assert "from delaykit.arrivals import" in text and "delaykit.kernels" not in text
