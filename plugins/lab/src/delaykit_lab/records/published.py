"""Tables of READMEs from records: paper, ours, protocol, why different. What has no record has no row.

``results/<paper>/tables.json`` says which records make a row; the text between two marks of a README is replaced::

    <!-- results: begin -->
    <!-- results: end -->

The file names the README and describes each table::

    {"readme": "plugins/delrec/README.md", "tables": [{
      "title": "...", "experiment": "speech", "unit": "test accuracy, %", "protocol": "...", "why": "...",
      "columns": [{"name": "test (%)", "key": "test", "scale": 100, "digits": 1}],
      "rows": [{"name": "learned", "where": {"variant": "learned delays"}, "paper": "93.4"}]}]}

``where`` compares settings, ``key`` finds a number in the result; both may be dotted paths. ``picture`` names a file of
the experiment's folder, ``pictures`` several.
"""

from __future__ import annotations

import json
import os
import statistics
from pathlib import Path
from typing import Any

from delaykit import DataError
from delaykit_lab.records import benchmarks
from delaykit_lab.records.answers import PAGE, RECORDS, answers
from delaykit_lab.records.budget import spent_text, what_is_left
from delaykit_lab.records.experiments import Experiment, experiments, lookup, records, spent_hours
from delaykit_lab.records.figures import figures
from delaykit_lab.records.page import learned_against_frozen
from delaykit_lab.records.tables import markdown

RESULTS = Path("results") / "README.md"
BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"


def tables(source: Path, paper: str, page: str | None = None) -> str:
    """Write all tables of a paper, as they stand in its README, or on another page."""
    settings = _settings(source, paper)
    return "\n".join(_table(source, paper, one, page or settings["readme"]) for one in settings["tables"])


def update(source: Path) -> list[Path]:
    """Rewrite the tables of READMEs, benchmarks, experiments and the questions' page; return the files that changed."""
    changed = []
    wanted = {source / RESULTS: results(source)}
    for path in sorted((source / "results").glob("*/tables.json")):
        readme = source / _settings(source, path.parent.name)["readme"]
        wanted[readme] = tables(source, path.parent.name)
    if (source / RECORDS).is_dir():
        wanted[source / PAGE] = answers(source)
    if measured := benchmarks.benchmarks(source):
        wanted[source / benchmarks.PAGE] = measured
    for readme, text in wanted.items():
        before = readme.read_text()
        after = replaced(before, text, str(readme))
        if after != before:
            readme.write_text(after)
            changed.append(readme)
    return changed


def replaced(text: str, between: str, where: str) -> str:
    """Put a text between the two marks.

    Raises:
        DataError: the marks are not there, once each and in order.

    Example:
        >>> replaced(f"a\\n{BEGIN}\\nold\\n{END}\\nb\\n", "new", "README.md").splitlines()[2]
        'new'
    """
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise DataError(where, "no place for results", f"{BEGIN} and {END}, once each", "add both lines")
    head, _, rest = text.partition(BEGIN)
    return f"{head}{BEGIN}\n{between.rstrip()}\n{END}{rest.partition(END)[2]}"


def results(source: Path) -> str:
    """Write the page *Results*: what learning is worth, all tables, figures, what is left, all there is."""
    papers = [path.parent.name for path in sorted((source / "results").glob("*/tables.json"))]
    parts = ["## Learned against frozen", "", learned_against_frozen(source), ""]
    for paper in papers:
        parts += [f"## {paper}", "", tables(source, paper, str(RESULTS)).rstrip(), ""]
    parts += ["## Where each figure is", "", figures(source), ""]
    parts += ["## What is left", "", spent_text(source), "", what_is_left(source), ""]
    return "\n".join([*parts, "## Every experiment", "", every_experiment(source)])


def every_experiment(source: Path) -> str:
    """List every experiment: how many records it has and what they took, its estimate, and the command."""
    head = ["paper", "experiment", "records", "CPU hours spent", "estimate, CPU hours", "command"]
    found = sorted([*experiments(source, "cpu"), *experiments(source, "full")], key=lambda e: (e.paper, e.name))
    return markdown(head, (_cells(one, source) for one in found))


def _cells(one: Experiment, source: Path) -> list[str]:
    folder = one.folder(source)
    count = len(records(folder)) if folder.is_dir() else 0
    spent = f"{spent_hours(folder):.2f}" if count else "-"
    cells = [one.paper, f"{one.name}: {one.what}", str(count) if count else "not run", spent, f"{one.cpu_hours:g}"]
    return [*cells, f"`{one.command()}`"]


def _settings(source: Path, paper: str) -> dict[str, Any]:
    return json.loads((source / "results" / paper / "tables.json").read_text())


def _table(source: Path, paper: str, table: dict[str, Any], readme: str) -> str:
    folder = source / "results" / paper / table["experiment"]
    found = records(folder)
    names = [column["name"] for column in table["columns"]]
    published = any("paper" in row for row in table["rows"])
    rows = []
    for row in table["rows"]:
        mine = _mine(found, {**table.get("where", {}), **row["where"]}, f"results/{paper}/tables.json, {row['name']!r}")
        cells = [_cell(mine, column) for column in table["columns"]]
        rows.append([row["name"], *cells, len(mine), *([row.get("paper", "-")] if published else [])])
    lines = [f"**{table['title']}**", "", markdown(["", *names, "seeds", *(["paper"] if published else [])], rows)]
    where = os.path.relpath(folder, source / Path(readme).parent)
    lines += ["", f"*Unit:* {table['unit']}; mean ± standard error over seeds. *Protocol:* {table['protocol']}"]
    lines[-1] += f" *Against the paper:* {table['why']}" if "why" in table else ""
    lines[-1] += f" Records: [{paper}/{table['experiment']}]({where})."
    for picture in table.get("pictures", [table["picture"]] if "picture" in table else []):
        lines += ["", f"![{table['title']}]({where}/{picture})"]
    return "\n".join([*lines, ""])


def _mine(found: list[dict[str, Any]], wanted: dict[str, Any], where: str) -> list[dict[str, Any]]:
    """Return the records of a row, one a seed."""
    mine = [one for one in found if all(lookup(one["settings"], path) == value for path, value in wanted.items())]
    seeds = {one["settings"].get("seed", 0) for one in mine}
    if not mine or len(seeds) != len(mine):
        found_here = f"{len(mine)} records of {len(seeds)} seeds"
        raise DataError(where, found_here, "one for each seed", "mend or drop the row")
    return mine


def _cell(found: list[dict[str, Any]], column: dict[str, Any]) -> str:
    values = [lookup(record["result"], column["key"]) for record in found]
    if any(value is None for value in values):
        return "-"
    scale, digits = column.get("scale", 1), column.get("digits", 1)
    mean = f"{scale * statistics.mean(values):.{digits}f}"
    if len(set(values)) == 1:  # one seed, or a number that no seed changes
        return mean
    return f"{mean} ± {scale * statistics.stdev(values) / len(values) ** 0.5:.{digits}f}"
