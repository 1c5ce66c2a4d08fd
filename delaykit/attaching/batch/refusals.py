"""What a neuron's watch says where nobody can tell which rows, or which run, a state is of."""

from __future__ import annotations

from delaykit.attaching.batch.membranes import Change
from delaykit.errors import HistoryError

MANUAL = "or use dk.At(component, reset='manual') and call dk.reset(net) where a sequence begins"


def two_readings(path: str, change: Change, where: str) -> HistoryError:
    """Say that a membrane's change may be a reset, or a change of places, or an edit."""
    if change.batch:
        return HistoryError(
            where, f"a membrane of {change.batch} rows in neuron {path!r}, while spikes of another batch are "
            "under way: nobody can tell which rows went on", "the first rows of before, cut by a slice (mem[:n])",
            f"sort by length and drop rows from the end, or call dk.reset(net) before this step; {MANUAL}",
        )  # fmt: skip
    reset = {"reset": "all rows", "rows": "some rows"}.get(change.kind, "some rows, or a change of places,")
    return HistoryError(
        where,
        f"another membrane in neuron {path!r} while spikes are under way: it could be a reset of {reset} or an edit",
        "an edit that leaves no row at zero that was not, or a reset that delaykit can see",
        f"call dk.reset(net), or dk.reset(net, rows=mask) for some rows, before this step; {MANUAL}",
    )


def unknown_rows(path: str, where: str, before: int | None) -> HistoryError:
    """Say that the batch changed and the neuron's state did not change alike."""
    found = f"a batch that was {before} rows, while spikes are under way and the state of {path!r} "
    expected = "rows dropped from the end of input and state, as packed sequences do it"
    fix = "drop rows from the end of the input and of the state, or reset the model first"
    return HistoryError(where, found + "was not cut in the same way", expected, fix)
