"""Which learning rates were tried for a row of a table, and whether the one chosen is the lowest or highest of them.

A trial is a record in ``tuning/`` of an experiment's folder whose settings are those of a run but for its rates, its
seed and its epochs; or an entry of ``tried`` in the run's own result.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from delaykit_lab.records.experiments import records

RATES = {"rate", "lr", "delay_lr", "peak_lr", "position_factor"}  # last words of settings that trials vary
OTHERWISE = {"seed", "epochs"}  # of trials
BEYOND = "Where a rate is the lowest or the highest of those tried, a better one may lie beyond."


def trials(folder: Path) -> list[dict[str, Any]]:
    """Return the settings of the trials of an experiment, flat: values by dotted path."""
    return [dict(_flat(one["settings"])) for one in records(folder / "tuning")]


def tried(record: Mapping[str, Any], among: Sequence[Mapping[str, Any]]) -> dict[str, tuple[float, list[float]]]:
    """Return for each rate of a run the one chosen, and those tried in order; nothing where there was no choice.

    Args:
        record: of a run.
        among: from :func:`trials`.
    """
    own = record["result"]
    if isinstance(own.get("tried"), Mapping) and "rate" in own:
        return {"rate": (own["rate"], sorted(map(float, own["tried"])))}
    mine = dict(_flat(record["settings"]))
    kept = {path: value for path, value in mine.items() if _last(path) not in RATES | OTHERWISE}
    same = [one for one in among if all(path in one and one[path] == value for path, value in kept.items())]
    found: dict[str, tuple[float, list[float]]] = {}
    for path, value in mine.items():
        values = sorted({one[path] for one in same if one.get(path) is not None}) if _last(path) in RATES else []
        if len(values) > 1 and value in values:
            found[path] = value, values
    return found


def at_edge(chosen: float, values: Sequence[float]) -> str:
    """Say where a rate lies among those tried, nothing where it lies between.

    Example:
        >>> at_edge(0.1, [0.01, 0.1]), at_edge(0.1, [0.01, 0.1, 1.0]), at_edge(0.1, [0.1])
        (', highest of 2', '', '')
    """
    if len(values) < 2 or min(values) < chosen < max(values):
        return ""
    return f", {'lowest' if chosen == min(values) else 'highest'} of {len(values)}"


def told(found: Mapping[str, tuple[float, list[float]]]) -> str:
    """Write the rates of a run with their edges; rates that are varied together are told by the first.

    Example:
        >>> told({"lr": (0.2, [0.1, 0.2]), "delay_lr": (2.0, [1.0, 2.0]), "position_factor": (10, [10, 100])})
        '0.2, highest of 2; x 10, lowest of 2'
    """
    parts, places = [], set()
    for path, (chosen, values) in found.items():
        if (place := (values.index(chosen), len(values))) not in places:
            factor = "x " if _last(path) == "position_factor" else ""
            parts.append(f"{factor}{chosen:g}{at_edge(chosen, values)}")
        places.add(place)
    return "; ".join(parts) or "-"


def edges(found: Mapping[str, tuple[float, list[float]]]) -> bool:
    """Whether a rate is the lowest or highest of those tried."""
    return any(at_edge(*one) for one in found.values())


def _flat(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{key}.")
        else:
            yield f"{before}{key}", value


def _last(path: str) -> str:
    return path.rpartition(".")[2]
