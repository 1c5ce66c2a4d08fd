"""How many runs an experiment's command makes of what it has records of: some may have fewer seeds than it asks for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from delaykit_lab.records.experiments import Experiment, experiments


def asked_seeds(experiment: Experiment) -> int | None:
    """Return the seeds that its options ask for; None where they leave it to the script, or to each part of it."""
    options = experiment.options
    return int(options[options.index("--seeds") + 1]) if "--seeds" in options else None


def seeds_of(source: Path, paper: str, name: str) -> int | None:
    """Return the seeds that the options of an experiment of this name ask for; None where it is not listed, too."""
    for scale in ("cpu", "full"):
        for one in experiments(source, scale):
            if (one.paper, one.name) == (paper, name):
                return asked_seeds(one)
    return None


def of_asked(count: int, asked: int | None) -> str:
    """Write a number of seeds or runs, and of how many if there should be more.

    Example:
        >>> of_asked(1, 3), of_asked(3, 3), of_asked(1, None)
        ('1 of 3', '3', '1')
    """
    return f"{count} of {asked}" if asked is not None and count < asked else str(count)


def lacking(found: Sequence[dict[str, Any]], asked: int | None) -> dict[int, int]:
    """Return which seeds are not there of how many settings that have at least one, by seed.

    Args:
        found: records of an experiment.
        asked: from :func:`asked_seeds`; seeds are counted from 0.

    Example:
        >>> lacking([{"settings": {"net": "a", "seed": 0}}, {"settings": {"net": "b", "seed": 0}}], 2)
        {1: 2}
    """
    kinds: dict[str, set[int]] = {}
    for one in found:
        settings = {key: value for key, value in one["settings"].items() if key != "seed"}
        kinds.setdefault(json.dumps(settings, sort_keys=True), set()).add(one["settings"].get("seed", 0))
    counts = {seed: sum(seed not in seeds for seeds in kinds.values()) for seed in range(asked or 0)}
    return {seed: count for seed, count in counts.items() if count}
