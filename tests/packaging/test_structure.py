"""The source tree: what the distributions contain, who imports whom, and that lists kept by hand are complete."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import delaykit

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
PLUGINS = sorted(path.parent for path in ROOT.glob("plugins/*/pyproject.toml"))
SOURCES = sorted(path for base in (ROOT / "delaykit", *ROOT.glob("plugins/*/src")) for path in base.rglob("*.py"))
TELLS_IN_ANOTHER_WAY = {  # what becomes of a package that is there and cannot be imported
    "delaykit/__main__.py": "it is listed as one to install, as one that is absent",
    "delaykit/commands/health.py": "it is a row of what is told",
    "plugins/lab/src/delaykit_lab/training/config.py": "a module of Python's own, of 3.11",
}


def read_toml(path: Path) -> dict:
    return tomllib.loads(path.read_text(encoding="utf-8"))


JUDGES_IN_USE = {  # by whom, and what judges them then
    "delaykit/engines/linear.py": "of a response that an author wrote out, the definition is all there is to run; "
    "networks with one are judged by delaykit.testing.nets.reference, which shares nothing with it",
}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The core's sdist and wheel."""
    out = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-d", str(out)], cwd=ROOT, check=True, timeout=120)
    return out


def test_the_wheel_holds_the_package_and_nothing_else(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0] for name in names} == {"delaykit", f"delaykit-{delaykit.__version__}.dist-info"}
    assert {"delaykit/py.typed", "delaykit/__init__.pyi"} <= set(names)
    assert "delaykit/commands/_template/src/delaykit_NAME/plugin.py.template" in names
    assert not [name for name in names if name.endswith((".pyc", ".npz", ".ipynb"))]


def test_the_sdist_holds_the_package_and_its_metadata(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    inside = {name.partition("/")[2] for name in tarfile.open(sdist).getnames()}
    top = {name.partition("/")[0] for name in inside}
    assert "delaykit" in top and "LICENSE" in top
    assert top <= {"delaykit", "pyproject.toml", "README.md", "LICENSE", "PKG-INFO", ".gitignore"}


def test_every_file_of_the_package_is_in_the_sdist(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    inside = {name.partition("/")[2] for name in tarfile.open(sdist).getnames()}
    sources = {path.relative_to(ROOT).as_posix() for path in (ROOT / "delaykit").rglob("*.py")}
    assert sources <= inside


def test_import_contracts_are_kept() -> None:
    lint = str(Path(sys.executable).parent / "lint-imports")
    done = subprocess.run([lint, "--no-cache"], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_plugin_is_under_the_import_contracts() -> None:
    linter = read_toml(ROOT / "pyproject.toml")["tool"]["importlinter"]
    packages = {path.name for path in ROOT.glob("plugins/*/src/delaykit_*") if path.is_dir()}
    contracts = {contract["name"]: contract for contract in linter["contracts"]}
    assert set(linter["root_packages"]) == packages | {"delaykit"}
    assert set(contracts["Plugins import public names only"]["source_modules"]) == packages
    assert set(contracts["No circle between files or rooms"]["ancestors"]) == packages | {"delaykit"}
    assert set(contracts["The core imports no plugin"]["forbidden_modules"]) == packages
    assert set(contracts["These kernels alone speak to LLVM"]["source_modules"]) == packages | {"delaykit"}
    methods = contracts["No method imports the lab"]["source_modules"] if len(packages) > 1 else []
    assert set(methods) == packages - {"delaykit_lab"}
    assert len(packages) < 3 or set(contracts["No method imports another plugin"]["modules"]) == set(methods)


@pytest.mark.parametrize("plugin", PLUGINS, ids=lambda path: path.name)
def test_a_plugin_is_named_licensed_and_versioned_like_the_core(plugin: Path) -> None:
    project = read_toml(plugin / "pyproject.toml")["project"]
    assert project["name"] == f"delaykit-{plugin.name}"
    assert project["version"].split(".")[:2] == delaykit.__version__.split(".")[:2]
    assert project["entry-points"]["delaykit"] == {plugin.name: f"delaykit_{plugin.name}.plugin"}
    cap = f">=0.1,<0.{int(delaykit.__version__.split('.')[1]) + 1}"
    assert any(re.fullmatch(rf"delaykit(\[[a-z,]+\])?{re.escape(cap)}", one) for one in project["dependencies"])
    assert project["keywords"] and project["license-files"] == ["LICENSE"]
    assert "Intended Audience :: Science/Research" in project["classifiers"]
    assert (plugin / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
    for name in ("README.md", "CHANGELOG.md", "LICENSE", "src", "tests"):
        assert (plugin / name).exists(), name


@pytest.mark.parametrize("plugin", PLUGINS, ids=lambda path: path.name)
def test_a_plugin_offers_the_libraries_it_is_for(plugin: Path) -> None:
    project = read_toml(plugin / "pyproject.toml")["project"]
    assert {"snntorch", "norse"} <= set(project["optional-dependencies"])


def test_the_extra_all_holds_every_run_time_extra() -> None:
    extras = read_toml(ROOT / "pyproject.toml")["project"]["optional-dependencies"]
    (everything,) = extras["all"]
    named = set(everything.removeprefix("delaykit[").removesuffix("]").split(","))
    assert named == set(extras) - {"all", "dev", "docs"}


def test_tutorials_and_their_scripts_say_the_same() -> None:
    import jupytext

    for notebook in ROOT.glob("tutorials/*.ipynb"):
        pair = [jupytext.read(path) for path in (notebook, notebook.with_suffix(".py"))]
        first, second = ([(cell.cell_type, cell.source) for cell in document.cells] for document in pair)
        assert first == second, f"run: jupytext --sync {notebook.relative_to(ROOT)}"


def test_a_package_that_is_broken_is_not_taken_for_one_that_is_absent() -> None:
    """Who catches an error of an import asks whose it is, and lets those of others through."""
    bare = set()
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ExceptHandler) and node.type is not None:
                caught = ast.unparse(node.type)
                if "ImportError" in caught or "ModuleNotFoundError" in caught:
                    asked = node.name and f"{node.name}.name" in "".join(map(ast.unparse, node.body))
                    bare |= set() if asked else {path.relative_to(ROOT).as_posix()}
    assert bare == set(TELLS_IN_ANOTHER_WAY)


def test_a_judge_runs_where_it_is_asked_for_and_nowhere_else() -> None:
    """What a file named ``reference`` defines is called behind ``wants_reference()``, or the list says what judges."""
    unasked = set()
    for path in SOURCES:
        if path.stem == "reference" or "testing" in path.parts:
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        judges = {
            alias.asname or alias.name for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and (node.module or "").endswith(".reference") for alias in node.names
        }  # fmt: skip
        branches = [node for node in ast.walk(tree) if isinstance(node, ast.If)]
        branches = [node for node in branches if "wants_reference" in ast.unparse(node.test)]
        asked = {id(inner) for node in branches for part in node.body for inner in ast.walk(part)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in judges and id(node) not in asked:
                unasked.add(path.relative_to(ROOT).as_posix())
    assert unasked == set(JUDGES_IN_USE)
