"""What a comparison supports: paired differences with intervals, the factorial of places, and plain sentences.

Rows are paired by seed: equal data, order and, where sizes agree, weights. The interval of a mean difference is
Student's, ``mean +- t(95 %, n - 1) max(s / sqrt(n), 1 / samples)``: no error is taken to be below one test sample.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from delaykit_lab.records.statistics import CONFIDENCE, FITTED

STATES = ("none", "frozen", "learned")


def paired(first: Sequence[float], second: Sequence[float], samples: int) -> dict[str, Any]:
    """Compare two rows seed by seed, in points (per cent of the test set).

    Args:
        first: accuracies of the seeds, fractions.
        second: the same of the row compared with.
        samples: number of test samples.

    Returns:
        ``difference``, ``low``, ``high`` and ``verdict``: ``more``, ``less`` or ``within`` the error.

    Example:
        >>> paired([0.95, 0.94, 0.96], [0.90, 0.88, 0.92], samples=1000)["verdict"]
        'more'
    """
    from scipy import stats  # type: ignore[import-untyped]

    differences = np.asarray(first, dtype=float) - np.asarray(second, dtype=float)
    error = max(float(differences.std(ddof=1)) / math.sqrt(len(differences)), 1.0 / samples)
    half = float(stats.t.ppf(0.5 + CONFIDENCE / 2, len(differences) - 1)) * error
    mean = float(differences.mean())
    verdict = "more" if mean > half else "less" if mean < -half else "within"
    return {"difference": 100 * mean, "low": 100 * (mean - half), "high": 100 * (mean + half), "verdict": verdict}


def findings(results: dict[str, Any]) -> dict[str, Any]:
    """Return differences to ``none`` and to frozen delays, the factorial, and sentences; rows that failed are named."""
    rows = {row["name"]: row for row in results["rows"]}
    whole = {name: [run["test"] for run in row["runs"]] for name, row in rows.items()
             if not any(run["failed"] for run in row["runs"])}  # fmt: skip
    samples, out, lines = results["samples"]["test"], [], []
    for name in whole:
        for against, what in ((_plain(rows), "the plain network"), (_frozen(rows, name), "the same delays frozen")):
            if against is not None and against in whole and against != name:
                found = paired(whole[name], whole[against], samples)
                out.append({"row": name, "against": against} | found)
                lines.append(_sentence(name, against, what, found))
    for name, row in rows.items():
        failed = [run["failed"] for run in row["runs"] if run["failed"]]
        if failed:
            count = f"{len(failed)} of {len(row['runs'])}"
            lines.append(f"{name}: {count} runs diverged ({failed[0]}), so it is not ranked.")
    short = {name: sum(run["train"] < FITTED for run in rows[name]["runs"]) for name in whole}
    if any(short.values()):
        said = ", ".join(f"{name} ({count} of {len(whole[name])})" for name, count in short.items() if count)
        below = f"below {100 * FITTED:.0f} %"
        lines.append(f"Runs that did not fit their training data ({below}), and tell of training: {said}.")
    lines += _rates(rows)
    return {"differences": out, "factorial": factorial(results["rows"]), "sentences": lines}


def _rates(rows: dict[str, Any]) -> list[str]:
    """Say where the search for a rate ended at its edge, so that a row may have more in it than was found."""
    tried = {name: sorted(float(rate) for rate in row["tried"]) for name, row in rows.items()}
    if all(len(rates) == 1 for rates in tried.values()):
        return ["A single learning rate was tried: no row is tuned."]
    at_end = [name for name, row in rows.items() if row["rate"] in (tried[name][0], tried[name][-1])]
    ends = [f"{name} ({rows[name]['rate']:g})" for name in at_end]
    said = f"Chosen at the edge of the rates tried, so that rates beyond it may do better: {', '.join(ends)}."
    return [said] if ends else []


def factorial(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the mean accuracy for each state of recurrent and forward delays that there is a row of, alone."""
    cells = []
    for recurrent in STATES:
        for forward in STATES:
            fits = [row for row in rows if (row["recurrent"], row["forward"]) == (recurrent, forward) and _only(row)]
            fits = [row for row in fits if not any(run["failed"] for run in row["runs"])]
            if fits:
                values = [run["test"] for run in fits[0]["runs"]]
                mean, spread = float(np.mean(values)), float(np.std(values, ddof=1)) / math.sqrt(len(values))
                cells.append({"recurrent": recurrent, "forward": forward, "row": fits[0]["name"], "mean": mean,
                              "error": spread})  # fmt: skip
    return cells


def _only(row: dict[str, Any]) -> bool:
    """Tell whether delays are all that sets a row apart from the plain network, or nothing does."""
    delays = sum(row[place] != "none" for place in ("recurrent", "forward"))
    return row["name"] != "wider" and row["neuron"] is None and len(row["methods"]) <= delays


def _plain(rows: dict[str, Any]) -> str:
    return "none" if "none" in rows else "wider"


def _frozen(rows: dict[str, Any], name: str) -> str | None:
    row = rows[name]
    wanted = tuple("frozen" if row[place] == "learned" else row[place] for place in ("recurrent", "forward"))
    if "learned" not in (row["recurrent"], row["forward"]):
        return None
    fits = [k for k, other in rows.items() if (other["recurrent"], other["forward"]) == wanted and _only(other)]
    return fits[0] if fits else None


def _sentence(name: str, against: str, what: str, found: dict[str, Any]) -> str:
    said = {"more": "better here", "less": "worse here", "within": "within the error, no difference is shown"}
    return (
        f"{name} against {against} ({what}): {found['difference']:+.1f} points "
        f"(95 % interval {found['low']:+.1f} to {found['high']:+.1f}): {said[found['verdict']]}."
    )
