"""What all records together took, and what is left to run, in its order, with an estimate.

``results/order.json`` says how many CPU hours there were to spend, and in which order experiments come::

    {"cpu_hours": 40, "order": [{"turn": "1", "paper": "spatial", "experiment": "yin_yang_full"}]}

An experiment that has records is done and not listed, unless its entry says what of it is missing (``missing``) and how
many hours that takes (``cpu_hours``). What has no entry comes last.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from delaykit import DataError
from delaykit_lab.records.experiments import Experiment, experiments, records, spent_hours
from delaykit_lab.records.tables import markdown

ORDER = Path("results") / "order.json"
HEAD = ["turn", "paper", "experiment", "missing", "estimate, CPU hours"]


def spent(source: Path) -> dict[str, float]:
    """Return the CPU hours of all records by folder of ``results/``: those of tuning runs are included.

    Example:
        >>> import tempfile
        >>> spent(Path(tempfile.mkdtemp()))
        {}
    """
    return {folder.name: spent_hours(folder) for folder in sorted((source / "results").glob("*/"))}


def spent_text(source: Path) -> str:
    """Say in one sentence what was spent, of how much."""
    hours = {name: value for name, value in spent(source).items() if value}
    each = ", ".join(f"{name} {value:.2f}" for name, value in hours.items())
    return f"All records here took {sum(hours.values()):.1f} of about {_order(source)['cpu_hours']} CPU hours ({each})."


def what_is_left(source: Path) -> str:
    """Write the table of what has not run, in its order.

    Raises:
        DataError: an entry names an experiment that is not listed, or one that has records and misses nothing.
    """
    known = {(one.paper, one.name): one for scale in ("cpu", "full") for one in experiments(source, scale)}
    order = {(entry["paper"], entry["experiment"]): entry for entry in _order(source)["order"]}
    if unknown := order.keys() - known.keys():
        found = f"no experiment {'/'.join(min(unknown))}"
        raise DataError(str(ORDER), found, "one of results/experiments.json", "mend its name")
    keys = [*order, *(key for key in known if key not in order)]
    return markdown(HEAD, [row for key in keys for row in _row(known[key], order.get(key), source)])


def _row(one: Experiment, entry: Mapping[str, Any] | None, source: Path) -> list[list[str]]:
    """Return its row, or none where nothing is missing."""
    folder = one.folder(source)
    ran, missing = folder.is_dir() and bool(records(folder)), (entry or {}).get("missing")
    if ran != (missing is not None) and entry is not None:
        found = f"{one.paper}/{one.name}, {'with' if ran else 'without'} records"
        raise DataError(str(ORDER), found, "'missing' where some are there and some are not", "mend or drop its entry")
    if ran and entry is None:
        return []
    hours = (entry or {}).get("cpu_hours", one.cpu_hours)
    return [[(entry or {}).get("turn", "later"), one.paper, one.name, missing or "all of it", f"{hours:g}"]]


def _order(source: Path) -> dict[str, Any]:
    path = source / ORDER
    return json.loads(path.read_text()) if path.exists() else {"cpu_hours": 0, "order": []}
