"""What all records together took, and what is left to run, in its order, with an estimate.

``results/order.json`` says how many CPU hours there were to spend, and in which order experiments come::

    {"cpu_hours": 40, "order": [{"turn": "1", "paper": "spatial", "experiment": "yin_yang_full"}]}

An experiment that has records is done and not listed, unless its entry says what of it is missing (``missing``) and how
many hours that takes (``cpu_hours``), or some of its networks have fewer seeds than its options ask for. What has no
entry comes last.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from delaykit import DataError
from delaykit_lab.records.asked import asked_seeds, lacking
from delaykit_lab.records.experiments import Experiment, experiments, records, spent_hours
from delaykit_lab.records.files import read_json
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
    ran, entry = records(folder), entry or {}
    less, said = lacking(ran, asked_seeds(one)), entry.get("missing")
    if entry and (said is not None and not ran or said is None and ran and not less):
        found = f"{one.paper}/{one.name}, {'with' if ran else 'without'} records"
        raise DataError(str(ORDER), found, "'missing' where some are there and some are not", "mend or drop its entry")
    if ran and said is None and not less:
        return []
    parts, hours = [said] if said else [], entry.get("cpu_hours", 0.0 if ran else one.cpu_hours)
    if less:
        runs, seeds = sum(less.values()), ", ".join(map(str, less))
        parts.append(f"{runs} of {len(ran) + runs} runs (seed{'s' if len(less) > 1 else ''} {seeds})")
        hours += runs * sum(record.get("cpu_s", 0.0) for record in ran) / len(ran) / 3600
    missing = "; ".join(parts) or "all of it"
    return [[entry.get("turn", "later"), one.paper, one.name, missing, f"{hours:.2g}" if less else f"{hours:g}"]]


def _order(source: Path) -> dict[str, Any]:
    path = source / ORDER
    return read_json(path) if path.exists() else {"cpu_hours": 0, "order": []}
