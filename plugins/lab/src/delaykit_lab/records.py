"""Every finished run is a JSON file that holds its settings, and is not run again."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from delaykit import CheckpointError


def record_path(folder: Path, settings: Any, name: str = "") -> Path:
    """Return the file for the record of a run: settings that differ have files that differ.

    Args:
        folder: where the records are kept.
        settings: what makes the run, a dataclass or a mapping of JSON values.
        name: begins the file's name, for people.

    Example:
        >>> record_path(Path("runs"), {"lr": 0.1, "seed": 0}, "learned_0").name
        'learned_0-0eb6a6c63f184494.json'
    """
    digest = hashlib.sha256(json.dumps(_plain(settings), sort_keys=True).encode()).hexdigest()[:16]
    return folder / f"{name}{'-' if name else ''}{digest}.json"


def remembered(path: Path, settings: Any, run: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return the result of a run that was finished with these settings, or run it and record it.

    Args:
        path: from `record_path`.
        settings: what makes the run, a dataclass or a mapping of JSON values.
        run: runs it; returns JSON values.

    Returns:
        What ``run`` returned, now or then.

    Raises:
        CheckpointError: the file is damaged or foreign, or holds a run with other settings.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> path = record_path(folder, {"seed": 0})
        >>> remembered(path, {"seed": 0}, lambda: {"test": 0.9})
        {'test': 0.9}
        >>> remembered(path, {"seed": 0}, lambda: {"test": 0.1})
        {'test': 0.9}
    """
    plain = _plain(settings)
    if path.exists():
        record = _read(path)
        if record["settings"] != plain:
            found, expected = f"a run with {record['settings']}", f"{plain}"
            raise CheckpointError(str(path), found, expected, "use another output folder")
        return record["result"]
    result = json.loads(json.dumps(run()))  # the same values, now or read from the file
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".new")
    temporary.write_text(json.dumps({"settings": plain, "result": result}, indent=1) + "\n")
    os.replace(temporary, path)
    return result


def _plain(settings: Any) -> dict[str, Any]:
    values = settings if isinstance(settings, Mapping) else dataclasses.asdict(settings)
    return json.loads(json.dumps(dict(values)))


def _read(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text())
        if not {"settings", "result"} <= set(record):
            raise ValueError("no settings and result in it")
    except (OSError, ValueError, TypeError) as problem:
        found = f"a file that is no record ({problem})"
        raise CheckpointError(str(path), found, "the record of a finished run", "delete it") from problem
    return record
