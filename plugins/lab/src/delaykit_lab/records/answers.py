"""What the open questions were answered: a record each, ``results/questions``, and the page's tables from them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from delaykit_lab.records.files import read_json, write_json
from delaykit_lab.records.provenance import provenance
from delaykit_lab.records.rates import BEYOND, at_edge
from delaykit_lab.records.statistics import percent
from delaykit_lab.records.tables import markdown

PAGE = Path("docs") / "explanation" / "open_questions.md"
RECORDS = Path("results") / "questions"


def write_answer(name: str, text: str | None, results: dict[str, Any], folder: Path, data: Sequence[Path] = ()) -> Path:
    """Write ``NAME.json`` beside the results of a comparison: what was asked, found and spent, and by which versions.

    Args:
        name: of the question, e.g. ``Q1``, or of a comparison.
        text: the question; None for a comparison that puts none.
        results: what ``results.json`` holds.
        folder: of the comparison; the CPU seconds are those of its runs.
        data: files that were read.

    Returns:
        The file; in a checkout, copied to ``results/questions``, it is what the documentation's page is written from.
    """
    spent = sum(json.loads(path.read_text(encoding="utf-8"))["cpu_s"] for path in (folder / "runs").glob("*.json"))
    path = folder / f"{name}.json"
    record = {"settings": {"name": name, "question": text}, "result": results, "cpu_s": round(spent, 2)}
    write_json(path, record | provenance(data))
    return path


def answers(source: Path) -> str:
    """Write all answers that have a record, as they stand in the page: the questions, then other comparisons."""
    records = [read_json(path) for path in sorted((source / RECORDS).glob("*.json"))]
    return "\n".join(_answer(record) for record in records)


def _answer(record: dict[str, Any]) -> str:
    results, asked = record["result"], record["settings"]
    setup, samples = results["comparison"], results["samples"]
    against = {(found["row"], found["against"]): found for found in results["findings"]["differences"]}
    rows = []
    for row in results["rows"]:
        delayed = row["recurrent"] != "none" or row["forward"] != "none"
        plain = [found for (name, other), found in against.items() if name == row["name"] and other == "none"]
        frozen = [found for (name, other), found in against.items() if name == row["name"] and other != "none"]
        rate = f"{row['rate']:g}{at_edge(row['rate'], setup['rates'])}"
        rows.append([
            f"`{row['name']}`", ", ".join(map(str, row["sizes"])), row["runs"][0]["parameters"], rate,
            _percent(row, "test"), _percent(row, "test_whole") if delayed else "-", _points(plain), _points(frozen),
        ])  # fmt: skip
    head = ["row", "neurons", "numbers", "rate", "test, %", "whole delays, %", "against `none`"]
    head.append("learned against frozen")
    equal = "all at the model's own sizes" if setup["equal"] == "nothing" else f"equal {setup['equal']}"
    rates = ", ".join(f"{rate:g}" for rate in setup["rates"])
    made = (
        f"{results['title']}: `{setup['model']}`, {equal}, delays of up to {setup['max_delay']} steps, "
        f"{setup['seeds']} seeds, {setup['epochs']} epochs, rates {rates}; {samples['train']} training and "
        f"{samples['test']} test samples, chance {100 * results['chance']:.1f} %. It took {record['cpu_s'] / 60:.1f} "
        f"minutes of one core (commit {str(record['commit'])[:7]})."
    )
    said = [BEYOND] if any(at_edge(row["rate"], setup["rates"]) for row in results["rows"]) else []
    said += [line for line in results["findings"]["sentences"] if "fit their training" in line or "diverged" in line]
    other = f"Methods compared on {results['title'].partition(':')[0]}"
    head_line = f"{asked['name']}. {asked['question']}" if asked["question"] else other
    parts = [f"### {head_line}", made, markdown(head, rows), *said]
    return "\n\n".join(parts) + "\n"


def _percent(row: dict[str, Any], name: str) -> str:
    if any(run["failed"] for run in row["runs"]):
        return "diverged"
    return percent([run[name] for run in row["runs"]]).replace("+-", "±").removesuffix(" %")


def _points(found: list[dict[str, Any]]) -> str:
    """Write a difference with its interval, in bold where the interval leaves out zero."""
    if not found:
        return "-"
    one = found[0]
    text = f"{one['difference']:+.1f} ({one['low']:+.1f} to {one['high']:+.1f})"
    return text if one["verdict"] == "within" else f"**{text}**"
