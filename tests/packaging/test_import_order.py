"""Every module can be the first one imported: a circular import that works in one order only is a trap for users."""

from __future__ import annotations

import importlib.util
import json
import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import delaykit
from delaykit.testing.faults import how_many

# One interpreter loads the libraries once, then each module is imported first in a fork of it.
EACH_IN_A_FORK = """
import importlib, json, os, sys
for library in ("torch._dynamo", "torch.library", "snntorch", "norse", "numba", "matplotlib", "hypothesis"):
    try:
        importlib.import_module(library)
    except ImportError:
        pass
failed = {}
for name in json.loads(sys.argv[1]):
    read, write = os.pipe()
    if os.fork() == 0:
        try:
            importlib.import_module(name)
        except BaseException as error:
            os.write(write, f"{type(error).__name__}: {error}".encode()[:2000])
        os._exit(0)
    os.close(write)
    message = os.fdopen(read).read()
    os.wait()
    if message:
        failed[name] = message
print(json.dumps(failed))
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks, which this system has not; the order is the same on all")
def test_every_module_can_be_imported_first() -> None:
    folder = str(Path(delaykit.__file__).parent)
    found = [("delaykit", True)]
    found += [(info.name, info.ispkg) for info in pkgutil.walk_packages([folder], "delaykit.", onerror=str)]
    # No two files import each other, says an import contract: what is left are circles through a package, all of which
    # are imported first here, and what no contract sees, for which some of the files are.
    names = [name for k, (name, is_package) in enumerate(found) if is_package or k % how_many(4, 1) == 0]
    here = importlib.util.find_spec("triton") is not None
    names = [name for name in names if "._" not in name and (here or not name.endswith(".triton"))]
    assert {"delaykit.wrapping", "delaykit.functional.recurrence"} < set(names) and len(names) > how_many(80, 200)
    done = subprocess.run(
        [sys.executable, "-c", EACH_IN_A_FORK, json.dumps(names)], capture_output=True, text=True, timeout=300
    )
    assert json.loads(done.stdout.splitlines()[-1]) == {}, done.stderr
