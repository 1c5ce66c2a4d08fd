"""Every finished run is a JSON file that holds its settings and what made it, and is not run again."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from delaykit import CheckpointError, ConfigError, checks
from delaykit.sealed import DIGEST, check_writable, commit, read_file
from delaykit_lab.declared import path_of, plain
from delaykit_lab.records.provenance import provenance


@checks.annotated
def record_path(folder: str | Path, settings: Any, name: str = "") -> Path:
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
    return Path(folder) / f"{name}{'-' if name else ''}{digest}.json"


@checks.annotated
def remembered(
    path: str | Path, settings: Any, run: Callable[[], dict[str, Any]], data: Iterable[str | Path] = ()
) -> dict[str, Any]:
    """Return the result of a run that was finished with these settings, or run it and record it.

    Args:
        path: from `record_path`.
        settings: what makes the run, a dataclass or a mapping of JSON values.
        run: runs it; returns JSON values. Where they have ``cpu_s``, it is recorded as the run's process time; else
            the time of this call is, which leaves out what an interrupted run had done before.
        data: files that were read; their checksums are recorded, with the versions of packages and the commit.

    Returns:
        What ``run`` returned, now or then.

    Raises:
        CheckpointError: the file is damaged or foreign, holds a run with other settings, or could not be written.
        ConfigError: settings or a result that JSON does not hold; numbers of numpy and torch become plain ones.
        DataError: a file of ``data`` is not there.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> path = record_path(folder, {"seed": 0})
        >>> remembered(path, {"seed": 0}, lambda: {"test": 0.9})
        {'test': 0.9}
        >>> remembered(path, {"seed": 0}, lambda: {"test": 0.1})
        {'test': 0.9}
        >>> sorted(json.loads(path.read_text()))
        ['commit', 'cpu_s', 'data', 'result', 'settings', 'sha256', 'versions']
    """
    path, wanted = path_of("remembered path", path), _plain(settings)
    if path.exists():
        record = read_record(path)
        if record["settings"] != wanted:
            found, expected = f"a run with {record['settings']}", f"{wanted}"
            raise CheckpointError(str(path), found, expected, "use another output folder")
        return record["result"]
    check_writable(path)  # before the run, which would be lost
    made_by, start = provenance([path_of("remembered data", file) for file in data]), time.process_time()
    result = _as_result(run())
    spent = round(result.get("cpu_s", time.process_time() - start), 2)
    record = {"settings": wanted, "result": result, "cpu_s": spent, **made_by}
    commit(path, _written(record | {DIGEST: _digest(record)}).encode())
    return result


def _digest(record: dict[str, Any]) -> str:
    """Digest the values of a record, whatever the spaces between them."""
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def _written(record: dict[str, Any]) -> str:
    """Write a key a line and a list of numbers on one line: small files whose changes can be read."""
    text = json.dumps(record, indent=1)
    return re.sub(r"\[\n[-+\d.eE,\s]+\]", lambda numbers: "".join(numbers[0].split()), text) + "\n"


def _plain(settings: Any) -> dict[str, Any]:
    if dataclasses.is_dataclass(settings) and not isinstance(settings, type):
        settings = dataclasses.asdict(settings)
    if not isinstance(settings, Mapping):
        found, fix = checks.shown(settings), "pass e.g. {'seed': 0}"
        raise ConfigError("settings of a run", found, "a dataclass, or values by name", fix)
    values: dict[str, Any] = plain("settings of a run", settings)
    return values


def _as_result(value: Any) -> dict[str, Any]:
    """Return the same values that are read from the file later."""
    if not isinstance(value, Mapping):
        raise ConfigError("result of a run", checks.shown(value), "values by name", "return e.g. {'accuracy': 0.9}")
    result: dict[str, Any] = json.loads(json.dumps(plain("result of a run", value)))
    if "cpu_s" in result:
        checks.number("result of a run 'cpu_s'", result["cpu_s"], least=0, what="number of seconds")
    return result


def read_record(path: Path) -> dict[str, Any]:
    """Read what :func:`remembered` wrote.

    Raises:
        CheckpointError: the file is damaged or foreign.
    """
    try:
        if path.is_dir():
            raise CheckpointError(str(path), "a folder", "the record of a finished run", "move it out of the way")
        record = json.loads(read_file(path))
        if not {"settings", "result"} <= set(record):
            raise ValueError("no settings and result in it")
        if record.pop(DIGEST, None) not in (None, _digest(record)):  # the first ones had none
            raise ValueError("values that its digest does not tell")
        if not isinstance(record["settings"], dict) or not isinstance(record["result"], dict):
            raise ValueError("settings or a result that are no table")
    except (OSError, ValueError, TypeError, RecursionError) as problem:
        found = f"a file that is no record ({problem})"
        fix = "delete it, and the run is made again"
        raise CheckpointError(str(path), found, "the record of a finished run", fix) from None  # not of writing
    return record
