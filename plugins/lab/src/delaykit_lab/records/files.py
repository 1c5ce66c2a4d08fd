"""The folder a run writes into: made or refused, and whole files in it."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import delaykit as dk
from delaykit.sealed import commit

MARKS = {"training": ("log.jsonl", "seed*.json"), "comparison": ("plan.json",)}  # what only such a folder holds
WAYS = {errno.ENOSPC: "free some space", errno.EDQUOT: "free some space", errno.EISDIR: "move it out of the way",
        errno.ENOTDIR: "move it out of the way", errno.EEXIST: "move it out of the way"}  # fmt: skip


def prepare_folder(folder: Path, resume: bool, kind: str = "training") -> None:
    """Make the folder, or refuse one with an earlier run.

    Args:
        folder: of a run.
        resume: go on with what is there.
        kind: ``training`` or ``comparison``; one does not go on with the other.

    Raises:
        ConfigError: there is an earlier run and ``resume`` is False, or one of another kind.
    """
    for other, marks in MARKS.items():
        if other != kind and any(any(folder.glob(mark)) for mark in marks):
            raise dk.ConfigError(str(folder), f"a {other}", f"a folder for a {kind}", "pass another --out")
    earlier = [path.name for path in folder.glob("*.json*")] + [path.name for path in folder.glob("state")]
    if earlier and not resume:
        fix = "pass --resume to go on with it, or another --out"
        raise dk.ConfigError(str(folder), f"an earlier run ({', '.join(sorted(earlier)[:3])})", "an empty folder", fix)
    folder.mkdir(parents=True, exist_ok=True)


def read_json(path: Path, kind: type = dict) -> Any:
    """Read JSON of a checkout: a list of experiments, a table's description, a record.

    Args:
        path: of the file.
        kind: ``dict`` or ``list``.

    Raises:
        DataError: it holds none, or a value of another kind.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as problem:
        raise dk.DataError(str(path), f"no JSON ({problem})", "a file as it was written", "restore it") from None
    if not isinstance(values, kind):
        raise dk.DataError(str(path), f"a {type(values).__name__}", f"a {kind.__name__}", "restore it")
    return values


def write_json(path: Path, values: Any) -> None:
    """Write JSON; an interruption leaves the earlier file whole."""
    commit(path, (json.dumps(values, indent=1) + "\n").encode())


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn what the machine does not let us write into a sentence; a new folder in which nothing was written goes.

    Raises:
        ConfigError: no permission, no space, or a file where a folder would be.
    """
    from safetensors import SafetensorError

    new = [path for path in (folder, *folder.parents) if not os.path.exists(path)]
    try:
        with _unmade_if_empty(new):
            yield
    except (OSError, SafetensorError, dk.CheckpointError) as problem:
        machine = problem.__cause__ if isinstance(problem, dk.CheckpointError) else problem
        if not isinstance(machine, (OSError, SafetensorError)):
            raise
        if isinstance(machine, OSError) and machine.errno is None and "safetensors" not in str(machine).lower():
            raise
        way = WAYS.get(machine.errno or 0, "") if isinstance(machine, OSError) else "free some space"
        fix = f"{way}{' or ' if way else ''}pass another --out; what is finished is kept: pass --resume then"
        found = f"a place that cannot be written ({problem})"
        raise dk.ConfigError(str(folder), found, "a writable one", fix) from problem


@contextlib.contextmanager
def _unmade_if_empty(folders: list[Path]) -> Iterator[None]:
    """Remove those of ``folders``, innermost first, that an error leaves empty."""
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):  # not empty, or never made
            for folder in folders:
                folder.rmdir()
        raise
