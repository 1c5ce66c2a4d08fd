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

import os
import statistics
from pathlib import Path
from typing import Any

from delaykit import DataError
from delaykit_lab.records import benchmarks
from delaykit_lab.records.answers import PAGE, RECORDS, answers
from delaykit_lab.records.asked import asked_seeds, lacking, of_asked, seeds_of
from delaykit_lab.records.budget import spent_text, what_is_left
from delaykit_lab.records.experiments import Experiment, experiments, lookup, records, spent_hours
from delaykit_lab.records.figures import figures
from delaykit_lab.records.files import read_json
from delaykit_lab.records.page import learned_against_frozen
from delaykit_lab.records.rates import BEYOND, edges, told, trials, tried
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
    found = records(folder)
    spent = f"{spent_hours(folder):.2f}" if found else "-"
    count = _of_all(found, asked_seeds(one)) if found else "not run"
    cells = [one.paper, f"{one.name}: {one.what}", count, spent, f"{one.cpu_hours:g}"]
    return [*cells, f"`{one.command()}`"]


def _of_all(found: list[dict[str, Any]], asked: int | None) -> str:
    return of_asked(len(found), len(found) + sum(lacking(found, asked).values()))


def _settings(source: Path, paper: str) -> dict[str, Any]:
    return read_json(source / "results" / paper / "tables.json")


def _table(source: Path, paper: str, table: dict[str, Any], readme: str) -> str:
    folder = source / "results" / paper / table["experiment"]
    found, asked = records(folder), seeds_of(source, paper, table["experiment"])
    rows = []
    for row in table["rows"]:
        place = f"results/{paper}/tables.json, {row['name']!r}"
        rows.append((row, _mine(found, {**table.get("where", {}), **row["where"]}, place)))
    chosen = _rates([mine for _, mine in rows], folder)
    columns = [[column["name"], *(_cell(mine, column) for _, mine in rows)] for column in table["columns"]]
    if any(chosen):
        columns.append(["rate", *map(told, chosen)])
    columns.append(["seeds", *(of_asked(len(mine), asked) for _, mine in rows)])
    if any("paper" in row for row, _ in rows):
        columns.append(["paper", *(row.get("paper", "-") for row, _ in rows)])
    head, *cells = zip(["", *(row["name"] for row, _ in rows)], *columns, strict=True)
    where = os.path.relpath(folder, source / Path(readme).parent)
    lines = [f"**{table['title']}**", "", markdown(head, cells), "", f"*Unit:* {table['unit']}; mean ± standard error"]
    lines[-1] += f" over seeds. *Protocol:* {table['protocol']}{' ' + BEYOND if any(map(edges, chosen)) else ''}"
    lines[-1] += f" *Against the paper:* {table['why']}" if "why" in table else ""
    lines[-1] += f" Records: [{paper}/{table['experiment']}]({where}){_what_is_there(found, asked)}."
    for picture in table.get("pictures", [table["picture"]] if "picture" in table else []):
        lines += ["", f"![{table['title']}]({where}/{_there(folder / picture)})"]
    return "\n".join([*lines, ""])


def _rates(rows: list[list[dict[str, Any]]], folder: Path) -> list[dict[str, tuple[float, list[float]]]]:
    """Return for each row of a table which rates were chosen of which; the seeds of a row have one."""
    among = trials(folder)
    return [tried(mine[0], among) for mine in rows]


def _what_is_there(found: list[dict[str, Any]], asked: int | None) -> str:
    """Say that the command makes more runs than there are."""
    count = _of_all(found, asked)
    return f", {count} that its command makes" if " of " in count else ""


def _there(picture: Path) -> str:
    """Return a picture's name.

    Raises:
        DataError: it is not there.
    """
    if not picture.is_file():
        raise DataError(str(picture), "no picture", "one that its script drew", "restore it, or run its command again")
    return picture.name


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
