"""Install wheels into a clean environment and test them there: the core alone, then each plugin alone beside it.

Usage: python tests/packaging/check_wheels.py DIST WORK
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TESTS = ["test_installed.py", "test_lazy_import.py"]


def run(*command: str | Path, **environ: str) -> None:
    """Run a command away from the source tree, so that nothing is imported from it."""
    print("+", *command, flush=True)
    subprocess.run([str(part) for part in command], check=True, env={**os.environ, **environ}, cwd=work)


def test(expected: str) -> None:
    """Run the packaging tests against what is installed."""
    code = "import delaykit, sys; sys.exit(0 if delaykit.__file__.startswith(sys.prefix) else delaykit.__file__)"
    run(python, "-c", code)
    paths = [ROOT / "tests" / "packaging" / name for name in TESTS]
    run(python.parent / "pytest", "-p", "no:cacheprovider", *paths, DELAYKIT_EXPECT=expected)


dist, work = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()
(core,) = dist.glob("delaykit-*.whl")
plugins = {re.match(r"delaykit_(\w+?)-", path.name)[1]: path for path in sorted(dist.glob("delaykit_*.whl"))}  # type: ignore[index]

venv.create(work / "env", with_pip=True, clear=True)
python = work / "env" / ("Scripts" if os.name == "nt" else "bin") / "python"
pip = (python, "-m", "pip", "--disable-pip-version-check")
constrained = (*pip, "install", "--quiet", "-c", ROOT / "constraints.txt")

run(*constrained, core, "pytest")
test(expected="")
for name, wheel in plugins.items():
    # No --find-links: a plugin that needs another plugin must not find it here.
    run(*constrained, wheel)
    test(expected=name)
    run(*pip, "uninstall", "--quiet", "--yes", f"delaykit-{name.replace('_', '-')}")
print("wheels tested: delaykit", *plugins)
