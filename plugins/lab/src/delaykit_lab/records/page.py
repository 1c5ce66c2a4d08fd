"""The page *Results*: learned against frozen, every table of every paper, and the list of experiments.

``results/pairs.json`` says which records make a pair, one of each a seed::

    [{"name": "recurrent delays", "paper": "delrec", "experiment": "speech",
      "frozen": {"variant": "frozen random delays"}, "learned": {"variant": "learned delays"}}]

``where`` compares settings of both; ``each`` makes a row of every value that a setting has; ``lower`` says that less is
better. A pair that has no records is left out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from delaykit_lab.records.differences import signed, verdict
from delaykit_lab.records.experiments import lookup, records
from delaykit_lab.records.tables import markdown

PAIRS = Path("results") / "pairs.json"
HEAD = ["what is learned", "records", "seeds", "validation, learned - frozen", "test, learned - frozen", "it shows"]


def learned_against_frozen(source: Path) -> str:
    """Write the table of all pairs: differences of the same seed in points, and what those on test samples show.

    Where the test samples were never scored, as in maps of settings, the differences on validation samples decide.
    """
    listed = json.loads((source / PAIRS).read_text()) if (source / PAIRS).exists() else []
    rows = [row for pair in listed for one in expanded(pair, source) for row in _rows(one, source)]
    return markdown(HEAD, rows)


def expanded(pair: Mapping[str, Any], source: Path) -> Iterator[dict[str, Any]]:
    """Make a pair of every value of the setting that ``each`` names, in the order of the records' names."""
    if "each" not in pair:
        yield dict(pair)
        return
    key = pair["each"]
    found = records(source / "results" / pair["paper"] / pair["experiment"])
    for value in dict.fromkeys(lookup(one["settings"], key) for one in found):
        yield {**pair, "name": f"{pair['name']}: {value}", "where": {**pair.get("where", {}), key: value}}


def differences(pair: Mapping[str, Any], source: Path, key: str) -> list[float]:
    """Return learned minus frozen of each seed that has both; for errors, which are better low, the other way round."""
    scores: dict[str, dict[int, float]] = {"frozen": {}, "learned": {}}
    for one in records(source / "results" / pair["paper"] / pair["experiment"]):
        for side, mine in scores.items():
            wanted = {**pair.get("where", {}), **pair[side]}
            value = lookup(one["result"], key)
            if value is not None and all(lookup(one["settings"], path) == wish for path, wish in wanted.items()):
                mine[one["settings"].get("seed", 0)] = value
    seeds = sorted(scores["frozen"].keys() & scores["learned"].keys())
    sign = -1 if pair.get("lower") else 1
    return [sign * (scores["learned"][seed] - scores["frozen"][seed]) for seed in seeds]


def _rows(pair: Mapping[str, Any], source: Path) -> Iterator[list[str]]:
    held, test = (differences(pair, source, key) for key in ("validation", "test"))
    if held or test:
        where = f"[{pair['paper']}/{pair['experiment']}]({pair['paper']}/{pair['experiment']})"
        cells = [signed(values) if values else "-" for values in (held, test)]
        yield [pair["name"], where, str(len(test or held)), *cells, verdict(test or held)]
