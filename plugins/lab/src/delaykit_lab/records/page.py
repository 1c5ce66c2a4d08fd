"""The page *Results*: learned against frozen, every table of every paper, and the list of experiments.

``results/pairs.json`` says which records make a pair, one of each a seed::

    [{"name": "recurrent delays", "paper": "delrec", "experiment": "speech",
      "frozen": {"variant": "frozen random delays"}, "learned": {"variant": "learned delays"}}]

``where`` compares settings of both; ``each`` makes a row of every value that a setting has; ``lower`` says that less is
better. A pair that has no records is left out. Which pairs share their frozen runs, and whose rates are the lowest or
highest of those tried, is read from the records.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from delaykit_lab.records.asked import of_asked, seeds_of
from delaykit_lab.records.differences import ENOUGH, signed, verdict
from delaykit_lab.records.experiments import lookup, records
from delaykit_lab.records.files import read_json
from delaykit_lab.records.rates import edges, trials, tried
from delaykit_lab.records.tables import markdown

PAIRS = Path("results") / "pairs.json"
HEAD = ["what is learned", "records", "seeds", "validation, learned - frozen", "test, learned - frozen", "it shows"]
SIDES = ("frozen", "learned")
Sides = dict[str, dict[int, dict[str, Any]]]


def learned_against_frozen(source: Path) -> str:
    """Write the table of all pairs: differences of the same seed in points, and what those on test samples show.

    Where the test samples were never scored, as in maps of settings, the differences on validation samples decide.
    """
    listed = read_json(source / PAIRS, list) if (source / PAIRS).exists() else []
    seen: list[tuple[str, Sides]] = []
    rows = [row for pair in listed for one in expanded(pair, source) for row in _rows(one, source, seen)]
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


def sides(pair: Mapping[str, Any], source: Path) -> Sides:
    """Return the records of both sides by seed."""
    found: Sides = {side: {} for side in SIDES}
    for one in records(source / "results" / pair["paper"] / pair["experiment"]):
        for side, mine in found.items():
            wanted = {**pair.get("where", {}), **pair[side]}
            if all(lookup(one["settings"], path) == wish for path, wish in wanted.items()):
                mine[one["settings"].get("seed", 0)] = one
    return found


def differences(pair: Mapping[str, Any], found: Sides, key: str) -> list[float]:
    """Return learned minus frozen of each seed that has both; for errors, which are better low, the other way round."""
    values = [{seed: lookup(one["result"], key) for seed, one in found[side].items()} for side in SIDES]
    frozen, learned = ({seed: value for seed, value in of.items() if value is not None} for of in values)
    sign = -1 if pair.get("lower") else 1
    return [sign * (learned[seed] - frozen[seed]) for seed in sorted(frozen.keys() & learned.keys())]


def _rows(pair: Mapping[str, Any], source: Path, seen: list[tuple[str, Sides]]) -> Iterator[list[str]]:
    found = sides(pair, source)
    held, test = (differences(pair, found, key) for key in ("validation", "test"))
    if held or test:
        where = f"[{pair['paper']}/{pair['experiment']}]({pair['paper']}/{pair['experiment']})"
        cells = [signed(values) if values else "-" for values in (held, test)]
        seeds = of_asked(len(test or held), seeds_of(source, pair["paper"], pair["experiment"]))
        shown = verdict(test or held) + _edges(found, source / "results" / pair["paper"] / pair["experiment"])
        yield [pair["name"] + _again(found, seen), where, seeds, *cells, shown]
        seen.append((pair["name"], found))


def _edges(found: Sides, folder: Path) -> str:
    """Say on which side the rate is the lowest or highest of those tried."""
    among = trials(folder)
    at = [side for side in SIDES if any(edges(tried(one, among)) for one in found[side].values())]
    return f"; {' and '.join(at)} at the edge of the rates tried" if at else ""


def _again(found: Sides, seen: list[tuple[str, Sides]]) -> str:
    """Say where a control, or both sides, are those of a pair before: as many seeds, and the same scores."""
    if len(found["frozen"]) < ENOUGH:
        return ""
    for name, other in seen:
        same = [side for side in SIDES if _scores(found[side]) == _scores(other[side])]
        if "frozen" in same:
            return f" ({'the runs' if 'learned' in same else 'the frozen runs'} of *{name}* again)"
    return ""


def _scores(runs: Mapping[int, Mapping[str, Any]]) -> dict[int, Any]:
    """Return what tells runs apart, by seed: a test score may be there or not."""
    return {seed: one["result"].get("validation", one["result"].get("test")) for seed, one in runs.items()}
