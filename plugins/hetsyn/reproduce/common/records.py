"""Every finished run is a JSON file with its settings, and is not repeated."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any


def remembered(folder: Path, settings: Any, run: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return the record of a run with these settings (a dataclass), or run it and record it."""
    plain = json.loads(json.dumps(dataclasses.asdict(settings)))
    key = hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:16]
    path = folder / f"{key}.json"
    if path.exists():
        record = json.loads(path.read_text())
        if record["settings"] == plain:
            return record["result"]
    result = run()
    folder.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".new")
    temporary.write_text(json.dumps({"settings": plain, "result": result}) + "\n")
    os.replace(temporary, path)
    return result


def spread(values: list[float], digits: int = 1) -> str:
    """Write a mean with the smallest and the largest value."""
    return f"{statistics.mean(values):.{digits}f} ({min(values):.{digits}f} .. {max(values):.{digits}f})"
