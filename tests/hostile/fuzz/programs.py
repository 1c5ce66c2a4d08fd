"""Random programs: how one model is run, and what is changed on the way. A seed is a program.

A program is a list of sequences; a sequence has a length, a batch, and edits ``(time, name, argument)``. What an edit
means for a line is written beside it in :data:`EDITS`, taken from the list of events that empty a line: this table is
the reference's reset rule.
"""

from __future__ import annotations

import dataclasses
import random
from typing import Any

OFTEN_REFUSED = 0.4  # of the edits that may be refused so many are kept: refused programs show little
GRANULARITIES = ("layer", "axonal", "dendritic", "synaptic")


@dataclasses.dataclass(frozen=True)
class Edit:
    """One change before a step.

    Args:
        time: before which step.
        name: one of :data:`EDITS`.
        argument: a random number or list that it needs.
    """

    time: int
    name: str
    argument: Any = None


@dataclasses.dataclass(frozen=True)
class Sequence:
    """One run from a fresh state.

    Args:
        time: number of steps.
        batch: number of rows.
        seed: of its spikes.
        edits: what happens on the way.
        gradients: whether the graph is recorded.
    """

    time: int
    batch: int
    seed: int
    edits: tuple[Edit, ...]
    gradients: bool


@dataclasses.dataclass(frozen=True)
class Program:
    """What the fuzzer runs, twice: on the wrapped model and on the reference.

    Args:
        kind: outer | inner | chain | cell.
        granularities: of the two connections.
        whole: delays are whole numbers.
        policy: auto | manual | root.
        views: streams in the run.
        seen_views: streams in the example.
        threads: run all sequences at the same time.
        sequences: what to run.
    """

    kind: str
    granularities: tuple[str, str]
    whole: bool
    policy: str
    views: int
    seen_views: int
    threads: bool
    sequences: tuple[Sequence, ...]
    seed: int


# What kind of edit it is, and whether a HistoryError is as good as the right number. What it does to a line is decided
# by the values where it is an edit of a membrane, see reading() in queue_reference.py.
EDITS: dict[str, dict[str, tuple[str, bool]]] = {
    "outer": {
        "clamp": ("continue", False),
        "noise": ("continue", False),
        "noise in place": ("continue", False),
        "detach": ("cut", False),
        "detach clone": ("cut", False),
        "reset_mem": ("reset", False),
        "utils.reset": ("reset", False),
        "placeholder": ("reset", False),
        "dk.reset": ("reset", False),
        "zero all": ("reset", True),
        "rows to zero": ("rows", True),
        "dk.reset rows": ("rows", False),
        "drop last rows": ("move", False),
        "permute rows": ("move", True),
        "weight in place": ("weight", False),
        "weight replaced": ("weight", False),
        "weight loaded": ("weight", False),
    },
    "inner": {
        "clamp": ("continue", False),
        "noise": ("continue", False),
        "detach clone": ("continue", False),
        "dk.reset": ("reset", False),
        "drop last rows": ("move", False),
        "permute rows": ("move", True),
        "dk.reset rows": ("rows", False),
        "weight in place": ("weight", False),
        "weight replaced": ("weight", False),
        "skip": ("skip", True),
    },
    "chain": {
        "noise": ("continue", False),
        "detach": ("cut", False),
        "none": ("reset", False),
        "rows to zero": ("rows", False),
        "move rows": ("move", False),
        "repeat rows": ("move", True),
        "drop last rows": ("move", False),
        "weight in place": ("weight", False),
        "weight replaced": ("weight", False),
    },
}
EDITS["cell"] = EDITS["chain"]


def random_program(seed: int) -> Program:
    """Make the program of a seed."""
    r = random.Random(seed)
    kind = r.choice(("outer", "outer", "inner", "inner", "chain", "cell"))
    views = r.choice((1, 1, 1, 2, 3)) if kind == "inner" else 1
    seen = r.choice((views, views, views, 1, 2)) if kind == "inner" else 1
    policies = {"outer": ("auto", "auto", "manual"), "inner": ("auto", "root")}
    policy = r.choice(policies.get(kind, ("auto",)))
    threads = views == seen == 1 and kind != "outer" and r.random() < 0.2
    sequences = tuple(_sequence(r, kind, views, seen, threads) for _ in range(r.choice((1, 2, 3))))
    if threads:
        sequences = sequences * 2 if len(sequences) == 1 else sequences
    granularities = (r.choice(GRANULARITIES), r.choice(GRANULARITIES))
    return Program(kind, granularities, r.random() < 0.5, policy, views, seen, threads, sequences, seed)


def _sequence(r: random.Random, kind: str, views: int, seen: int, threads: bool) -> Sequence:
    time, batch = r.randint(4, 12), r.randint(1, 4)
    gradients = r.random() < 0.5 and not threads
    names = list(EDITS[kind])
    if views > 1 or seen > 1:
        names = [n for n in names if EDITS[kind][n][0] in ("continue", "weight")]
    if threads:  # weights are everyone's: nobody changes them
        names = [n for n in names if EDITS[kind][n][0] in ("continue", "move")]
    if gradients:  # values that backward needs are not changed in place
        names = [n for n in names if "in place" not in n and n != "weight loaded"]
    edits, rows = [], batch
    for t in sorted(r.sample(range(1, time), min(r.choice((0, 1, 1, 2, 3)), time - 1))):
        name = r.choice(names)
        if EDITS[kind][name][1] and r.random() > OFTEN_REFUSED:
            continue
        if EDITS[kind][name][0] in ("rows", "move") and rows == 1:
            continue
        argument: Any = r.random()
        if name == "drop last rows":
            argument = rows = r.randint(1, rows - 1)
        elif name == "permute rows":
            argument = r.sample(range(rows), rows)
        elif name == "move rows":
            argument = r.sample(range(rows), r.randint(1, rows))
            rows = len(argument)
        elif name == "repeat rows":
            argument = [r.randrange(rows) for _ in range(r.randint(1, rows))]
            rows = len(argument)
        elif EDITS[kind][name][0] == "rows":
            argument = [r.random() < 0.5 for _ in range(rows)]
        edits.append(Edit(t, name, argument))
    return Sequence(time, batch, r.randrange(10**6), tuple(edits), gradients)
