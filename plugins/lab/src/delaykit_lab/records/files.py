"""The folder a run writes into: made or refused, and whole files in it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import delaykit as dk
from delaykit.sealed import commit


def prepare_folder(folder: Path, resume: bool) -> None:
    """Make the folder, or refuse one with an earlier training.

    Raises:
        ConfigError: there is one, and ``resume`` is False.
    """
    earlier = [path.name for path in folder.glob("*.json*")] + [path.name for path in folder.glob("state")]
    if earlier and not resume:
        fix = "pass --resume to go on with it, or another --out"
        raise dk.ConfigError(str(folder), f"an earlier run ({', '.join(sorted(earlier)[:3])})", "an empty folder", fix)
    folder.mkdir(parents=True, exist_ok=True)


def write_json(path: Path, values: Any) -> None:
    """Write JSON; an interruption leaves the earlier file whole."""
    commit(path, (json.dumps(values, indent=1) + "\n").encode())


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn what the machine does not let us write into a sentence.

    Raises:
        ConfigError: no permission, no space, or a file where a folder would be.
    """
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, SafetensorError, dk.CheckpointError) as problem:
        machine = problem.__cause__ if isinstance(problem, dk.CheckpointError) else problem
        if not isinstance(machine, (OSError, SafetensorError)):
            raise
        if isinstance(machine, OSError) and machine.errno is None and "safetensors" not in str(machine).lower():
            raise
        fix = "free some space or pass another --out; what is finished is kept: pass --resume then"
        found = f"a place that cannot be written ({problem})"
        raise dk.ConfigError(str(folder), found, "a writable one", fix) from problem
