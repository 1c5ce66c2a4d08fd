"""What a neuron's watch says where nobody can tell which rows, or which run, a state is of."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from delaykit.attaching.batch.membranes import Change
from delaykit.errors import HistoryError
from delaykit.functional.step_tape.segment import refuse_backward

MANUAL = "or use dk.At(component, reset='manual') and call dk.reset(net) where a sequence begins"


UNFINISHED = "a step that began and did not finish (an error in forward?)"
BEGIN_ANEW = "begin the sequence anew, with dk.reset(net) and a fresh state: what was stepped cannot be taken back"
AFTER_A_FAILURE = "behind a step that did not finish " + BEGIN_ANEW
ANOTHER_ONE = (
    "run another sequence (a validation, another user) on a copy of the model, copy.deepcopy(net), made before either "
    "runs, or both as rows of one batch"
)


def taken_once(step: Callable[..., Any]) -> Callable[..., Any]:
    """Let a step that is refused within a backward pass say so: it was taken before, and that is the reason."""

    @functools.wraps(step)
    def checked(self: Any, *args: Any) -> Any:
        try:
            return step(self, *args)
        except HistoryError:
            refuse_backward(self.path)
            raise

    return checked


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
        "an edit that leaves no row at rest that was not, or a reset that delaykit can see",
        "call dk.reset(net), or dk.reset(net, rows=mask) for some rows, before this step "
        f"(dk.reset(net.{where}, rows=mask) where the others' lines ride in a state); {MANUAL}",
    )


def reset_and_running(path: str, where: str) -> HistoryError:
    """Say that a neuron was reset, and then handed the membrane that it had before."""
    found = f"a running membrane handed to neuron {path!r} behind a reset of it (reset_mem, utils.reset and the like), "
    found += "which emptied this connection's line, while spikes were under way"
    fix = "hand in what reset_mem() returned; leave this neuron out of the reset (snnTorch: utils.reset of the other "
    fix += "model, and not of one that this neuron is part of, nor a class's reset_hidden()); for several users or "
    fix += f"threads, a copy of the model for each; {MANUAL}"
    expected = "a fresh membrane behind a reset, or no reset of a neuron whose membrane runs on"
    return HistoryError(where, found, expected, fix)


def unknown_rows(path: str, where: str, before: int | None) -> HistoryError:
    """Say that the batch changed and the neuron's state did not change alike."""
    found = f"a batch that was {before} rows, while spikes are under way and the state of {path!r} "
    expected = "rows dropped from the end of input and state, as packed sequences do it"
    fix = "drop rows from the end of the input and of the state, or reset the model first"
    return HistoryError(where, found + "was not cut in the same way", expected, fix)


def other_rows(where: str, what: str, own: int, carried: bool = False) -> HistoryError:
    """Say that rows of a state changed which are elsewhere, or mixed, in the input of a connection.

    Args:
        where: the connection.
        what: what came: a change of a state, or a mask.
        own: number of rows of the connection's input.
        carried: whether the line rides in a state.
    """
    found = f"{what}, while spikes are under way in the {own} rows of this connection's input, which are others: "
    found += "between the two, rows change their places or are joined"
    fix = "begin all rows anew (None)" if carried else (
        "reset all rows (dk.reset(net)); or say which rows of its input begin anew, before you write to the membrane: "
        f"dk.reset(net.get_submodule({where!r}), rows=mask), one truth value for each of the {own}"
    )  # fmt: skip
    fix += "; or put the layer where its input has the neuron's rows (behind a transpose, indexing or sum over views)"
    return HistoryError(where, found, "rows in the same places in both", fix)


def cut_too_late(path: str, where: str) -> HistoryError:
    """Say that a membrane lost its graph where the connection before it has read what is older."""
    return HistoryError(
        where,
        f"a membrane without its graph in neuron {path!r}, after this connection has read spikes under way with theirs",
        "both cut at the same step",
        "call dk.detach(net) where you detach the membrane; or give it to the model (net(x, mem.detach()))",
    )


def lost_between_calls(path: str, where: str, same: bool, held: bool) -> HistoryError:
    """Say that a sequence may go on in a call that delays begin anew with.

    Args:
        path: the neuron.
        where: the connections.
        same: whether it goes on from the state of the last call.
        held: whether the neuron keeps a membrane that connections could follow; else the caller carries it.
    """
    found = f"the state that neuron {path!r} left at the end of the last call, handed on to this one"
    if not same:
        found = f"neuron {path!r} on a state that is not at rest: that of the last call, edited, or one that "
        found += "a sequence begins with"
    return HistoryError(
        where, f"{found}, while delays begin anew with every call, and spikes were under way",
        "one call a sequence, as in the example",
        ("wrap with example=: a function that runs one sequence in two calls" if held else IN_A_CONTAINER)
        + "; or use dk.At(component, reset='manual') and call dk.reset(net) before each sequence; or "
        "dk.At(component, reset='root') if spikes under way shall be lost, or states of your own begin sequences",
    )  # fmt: skip


IN_A_CONTAINER = (
    "put the layer itself and its neuron, as entries of their own, into a container whose state carries what is under "
    "way (Norse: SequentialState, where a Linear, without Lift, takes whole sequences, too)"
)


def other_streams(path: str, period: int, where: str) -> HistoryError:
    """Say that streams take other turns on a neuron than they did in the example."""
    return HistoryError(
        where, f"neuron {path!r} stepped on other streams, or in another order, than in the example",
        f"{period} streams that take turns, each going on from the membrane that it left",
        "wrap again with an example that runs the streams as you do now; edit the membranes of several streams in "
        "place, so that each is known; do not hand an older membrane to the neuron; " + AFTER_A_FAILURE,
    )  # fmt: skip


def older_membrane(path: str, where: str, replaced: bool = False) -> HistoryError:
    """Say that a neuron was given an older membrane, while the line has gone on.

    Args:
        path: the neuron.
        where: the connection.
        replaced: whether another sequence is known to have begun since.
    """
    found, fix = f"neuron {path!r} on an older membrane than the one that it left: ", ANOTHER_ONE
    if replaced:
        found += "another sequence began in between, and the line of this one is gone"
    else:
        found += f"another sequence ran in between, or this state was used twice, or {UNFINISHED}"
        fix += f"; {AFTER_A_FAILURE}"
    return HistoryError(where, found, "one sequence at a time, each step behind the one before", fix)


def unfinished(path: str | None, where: str) -> HistoryError:
    """Say that a step is tried again, where the call before failed in the middle of it.

    ``path``: the neuron; None where none is known.
    """
    of = "" if path is None else f" of neuron {path!r}"
    found = f"a step{of} tried again behind {UNFINISHED}, while spikes are under way"
    return HistoryError(where, found, "whole steps, each taken once", BEGIN_ANEW)


def stepped_already(where: str, what: str = "a state that was stepped already") -> HistoryError:
    """Say that a carried state was used twice, the second time maybe after an error."""
    fix = "begin each sequence with None, also where a step of it did not finish; " + ANOTHER_ONE
    return HistoryError(where, f"{what}, by another sequence or by {UNFINISHED}", "each state used once", fix)


def one_of_several(where: str, began: str, other: str) -> HistoryError:
    """Say that of the neurons behind one connection one began anew, and another went on."""
    return HistoryError(
        where,
        f"a reset of neuron {began!r}, but not of {other!r}, which this connection drives, too, while spikes were "
        "under way to both",
        "both reset between the same two steps",
        "reset both; or give each a layer of its own; or wrap with dk.At(component, reset='manual') and call "
        "dk.reset(net) where the line shall be emptied",
    )


def out_of_step(where: str, path: str, found: int, expected: int) -> HistoryError:
    """Say that a connection and its neuron do not go together: delays could count the calls of one or of the other."""
    replaced = "" if found else "; or wrap the model anew, if another module has taken the neuron's place"
    return HistoryError(
        where,
        f"{found} step(s) of neuron {path!r} between two calls of this connection, while spikes are under way: its "
        "delays could count its own calls or the neuron's steps",
        f"{expected}, as in the example",
        "call it at every step, with zeros where it has no input; or pass an example that runs as you do now"
        + replaced,
    )


def maybe_cut(what: str, where: str) -> HistoryError:
    """Say that what was changed behind a step without gradients may have been detached, too."""
    return HistoryError(
        where,
        f"{what} replaced by one of other values behind a step that was not recorded: it may have been detached, too, "
        "or not, while gradients through spikes under way are recorded",
        "a change that says whether the graph is cut",
        "call dk.detach(net) there to cut it; to keep it, change values in place (mem.mul_(...)), or the state of a "
        "cell by torch.utils._pytree.tree_map over all of it",
    )


def weight_changed(where: str) -> HistoryError:
    """Say that a weight, or a delay, changed within a graph: what is under way cannot lead back to two of them."""
    return HistoryError(
        where,
        "a weight that changed, or a delay, or whether one learns, while spikes are under way whose gradient is being "
        "recorded",
        "one weight and delay from a reset or detach to the next",
        "cut the graph first (detach the membranes, or dk.detach(net)), or change them under torch.no_grad() runs only",
    )
