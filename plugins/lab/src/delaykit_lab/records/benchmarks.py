"""Tables of ``benchmarks/README.md`` from the records that ``python benchmarks/bench_NAME.py --record`` writes.

A record's ``result`` holds ``tables``: rows, one mapping each, by the table's title. Columns are their keys, in the
order in which they first come; a column that begins with ``x`` is a ratio.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from delaykit_lab.records.files import read_json
from delaykit_lab.records.tables import markdown

PAGE = Path("benchmarks") / "README.md"
RECORDS = Path("results") / "benchmarks"
APART = {"script", "about", "machine", "load"}  # of the settings: what is said in words, or in another place


def benchmarks(source: Path) -> str:
    """Write the tables of all records of a checkout that hold some, by the name of the script."""
    found = [(path, read_json(path)) for path in sorted((source / RECORDS).glob("*.json"))]
    return "\n\n".join(_section(path, one) for path, one in found if "tables" in one["result"])


def _section(path: Path, record: dict[str, Any]) -> str:
    settings, versions = record["settings"], record["versions"]
    said = [f"{name.replace('_', ' ')} {_words(value)}" for name, value in settings.items() if name not in APART]
    made = f"{settings['machine']} at a load of {settings['load']:.1f}, torch {versions['torch']}"
    made += f", commit {str(record['commit'])[:7]}: [record](../{RECORDS.as_posix()}/{path.name})"
    parts = [f"### `{settings['script']}`", settings["about"], *_tables(record["result"]["tables"])]
    return "\n\n".join([*parts, f"*{', '.join(said)}; {made}.*" if said else f"*{made}.*"])


def _tables(tables: dict[str, list[dict[str, Any]]]) -> Iterator[str]:
    for title, rows in tables.items():
        columns = list(dict.fromkeys(name for row in rows for name in row))
        cells = [[_cell(name, row.get(name)) for name in columns] for row in rows]
        yield markdown([title, *columns[1:]] if title else ["", *columns[1:]], cells)


def _cell(column: str, value: Any) -> str:
    if value is None:
        return "-"
    if not isinstance(value, float):
        return str(value)
    if column.startswith("x "):
        return f"{value:.2f}"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.2g}" if abs(value) < 1 else f"{value:.3g}"


def _words(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
