"""What a benchmark found, as a record: ``results/benchmarks/NAME.json``, with versions, commit and machine.

``make tables`` writes the tables of ``benchmarks/README.md`` from these files. A benchmark says what it measured in the
first paragraph of its docstring, hands over rows, one dictionary each, and is asked with ``--record`` to keep them::

    python benchmarks/bench_fused.py --record
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from delaykit_lab.records.provenance import provenance

FOLDER = Path(__file__).resolve().parents[1] / "results" / "benchmarks"
Row = Mapping[str, Any]


def options(about: str | None) -> argparse.ArgumentParser:
    """Make a parser that shows the docstring and knows ``--record``; the record holds the other options."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", action="store_true", help="keep the figures in results/benchmarks/")
    return parser


def keep(given: argparse.Namespace, tables: Mapping[str, Sequence[Row]], **settings: Any) -> None:
    """Write the record of the script that runs, if ``--record`` was given.

    Args:
        given: what :func:`options` parsed.
        tables: rows by the table's title; a column that begins with ``x`` is a ratio.
        settings: sizes and whatever else the figures depend on.
    """
    script = sys.modules["__main__"]
    chosen = {name: value for name, value in vars(given).items() if name != "record" and value not in ("", None, False)}
    if given.record:
        name = Path(str(script.__file__)).stem
        said = {"script": f"{name}.py", "about": " ".join(str(script.__doc__).split("\n\n")[0].split())}
        write(name.removeprefix("bench_"), said | settings | chosen, {"tables": tables})


def write(name: str, settings: Row, result: Row, made: Row | None = None) -> None:
    """Write a record; a mapping or list that holds no other takes one line.

    Args:
        name: of the file.
        settings: what the figures depend on; machine and load are added.
        result: the figures.
        made: by what, where that was asked before the run began.
    """
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    machine = {"machine": f"{platform.machine()}, {os.cpu_count()} cores", "load": os.getloadavg()[0]}
    cpu_s = sum(one.ru_utime + one.ru_stime for one in spent)
    record = {"settings": {**settings, **machine}, "result": result, "cpu_s": cpu_s, **(made or provenance())}
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / f"{name}.json").write_text(_text(record) + "\n")


def _text(value: Any, indent: str = "") -> str:
    """Write JSON; five digits of a number are more than a measurement has."""
    if isinstance(value, float):
        return json.dumps(float(f"{value:.5g}"))
    if not isinstance(value, Mapping | list | tuple):
        return json.dumps(value)
    inside = indent + " "
    named = isinstance(value, Mapping)
    inner = list(value.values()) if isinstance(value, Mapping) else list(value)
    parts = [_text(one, inside) for one in inner]
    if isinstance(value, Mapping):
        parts = [f"{json.dumps(str(key))}: {part}" for key, part in zip(value, parts, strict=True)]
    first, last = "{}" if named else "[]"
    if not any(isinstance(one, Mapping | list | tuple) for one in inner):
        return f"{first}{', '.join(parts)}{last}"
    joined = ",\n".join(inside + part for part in parts)
    return f"{first}\n{joined}\n{indent}{last}"
