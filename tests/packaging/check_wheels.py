"""Install wheels into a clean environment and test them there: the core alone, then each plugin alone beside it.

Usage: python tests/packaging/check_wheels.py DIST WORK [PYTHON ...]

Each PYTHON is an interpreter, by default the one that runs this. What is not on the path,
or does not start, is named and left out.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TESTS = [ROOT / "tests" / "packaging" / name for name in ("test_installed.py", "test_lazy_import.py")]
IS_INSTALLED = "import delaykit, sys; sys.exit(0 if delaykit.__file__.startswith(sys.prefix) else delaykit.__file__)"


class CleanEnvironment:
    """A virtual environment; its commands run in its own folder, so that nothing comes from the source tree."""

    def __init__(self, folder: Path, python: str) -> None:
        subprocess.run([python, "-m", "venv", "--clear", str(folder)], check=True)
        self.folder = folder
        self.bin = folder / ("Scripts" if os.name == "nt" else "bin")

    def run(self, *command: str | Path, **environ: str) -> None:
        print("+", *command, flush=True)
        subprocess.run([str(part) for part in command], check=True, env={**os.environ, **environ}, cwd=self.folder)

    def pip(self, *arguments: str | Path) -> None:
        self.run(self.bin / "python", "-m", "pip", "--disable-pip-version-check", *arguments)

    def install(self, *what: str | Path) -> None:
        # No --find-links: a plugin that needs another plugin must not find it.
        self.pip("install", "--quiet", "-c", ROOT / "constraints.txt", *what)

    def installed(self) -> set[str]:
        """Return the names of all distributions that are there."""
        code = "import importlib.metadata as m; print(*(d.name for d in m.distributions()))"
        command = [str(self.bin / "python"), "-c", code]
        return set(subprocess.run(command, check=True, capture_output=True, text=True, cwd=self.folder).stdout.split())

    def test(self, plugins: str) -> None:
        """Run the packaging tests, which expect just these ``plugins``."""
        self.run(self.bin / "python", "-c", IS_INSTALLED)
        self.run(self.bin / "pytest", "-p", "no:cacheprovider", *TESTS, DELAYKIT_EXPECT=plugins)


def runs(python: str) -> bool:
    """Tell whether an interpreter is there and starts: a version manager leaves names on the path that do not."""
    return shutil.which(python) is not None and subprocess.run([python, "-c", ""], capture_output=True).returncode == 0


def version(python: str) -> tuple[int, int]:
    """Return major and minor version of an interpreter."""
    code = "import sys; print(*sys.version_info[:2])"
    major, minor = subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    return int(major), int(minor)


def check(dist: Path, work: Path, python: str) -> None:
    """Test the one core wheel and every plugin wheel in ``dist`` under one interpreter."""
    (core,) = dist.glob("delaykit-*.whl")
    clean = CleanEnvironment(work / "env", python)
    clean.install(core, "pytest")
    clean.test(plugins="")
    alone = clean.installed()
    for wheel in sorted(dist.glob("delaykit_*.whl")):
        distribution = wheel.name.partition("-")[0].replace("_", "-")
        if distribution == "delaykit-spikingjelly" and version(python) < (3, 11):  # SpikingJelly 2.0 needs 3.11
            continue
        clean.install(wheel)
        clean.test(plugins=distribution.removeprefix("delaykit-").replace("-", "_"))
        clean.pip("uninstall", "--quiet", "--yes", *sorted(clean.installed() - alone))  # the next must bring its own


def main(dist: Path, work: Path, pythons: list[str]) -> None:
    """Test under every interpreter that is there."""
    found = [python for python in pythons if runs(python)]
    for python in found:
        check(dist, work, python)
    missing = [python for python in pythons if python not in found]
    print(f"wheels tested with {', '.join(found)}" + (f"; not there: {', '.join(missing)}" if missing else ""))
    if not found:
        raise SystemExit("no interpreter to test with")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve(), sys.argv[3:] or [sys.executable])
