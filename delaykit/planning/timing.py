"""How a connection lives in time: whole sequences or steps, and when it forgets."""

from __future__ import annotations

import dataclasses
from typing import Any

from delaykit.attaching.adapter import Neuron, Spot
from delaykit.attaching.batch.refusals import IN_A_CONTAINER
from delaykit.attaching.clocks import RowLayout, Timing
from delaykit.attaching.connection.products import channel_space
from delaykit.checks.answers import answer_of
from delaykit.errors import ConfigError, HistoryError, PluginError, ShapeError
from delaykit.planning.beats import beats_of, calls_a_step, is_reused, steps_of
from delaykit.planning.between.layout import joined
from delaykit.planning.reports import check_membranes, check_state
from delaykit.planning.sequences import check_is_time, outside_the_loop, sequence_timing, time_dim_of, whole_policy
from delaykit.planning.survey import primary
from delaykit.planning.trace import Call, Trace, chains_of

ASK_MANUAL = "use dk.At(component, reset='manual') and call dk.reset(net) before each sequence"


class NeedsExample(ConfigError):
    """Only a run of the model can answer this."""


@dataclasses.dataclass(frozen=True)
class Decision:
    """Timing of a site, the neuron it drives, the one it follows, how their steps go together, and whether that neuron
    is used for other layers, too."""

    timing: Timing
    neuron: str | None = None
    follows: str | None = None
    beats: tuple[tuple[str, int], ...] = ()
    reused: bool = False


def decide(spot: Spot, rule: Any, trace: Trace | None, neurons: dict[str, Neuron], spots: list[Spot]) -> Decision:
    """Decide for one site; raises a typed error that says what to do where it cannot.

    Args:
        spot: the connection.
        rule: :class:`~delaykit.At` or :class:`~delaykit.Recurrent`, with ``reset`` and maybe ``time_dim``.
        trace: what the example run showed, or None without an example.
        neurons: neurons of the model by path.
        spots: all connections.
    """
    reset, time_dim = rule.reset, getattr(rule, "time_dim", None)
    if spot.owner is not None:
        return _owned(spot, reset, trace, neurons)
    if trace is None:
        return _without_example(spot, reset, time_dim)
    seen_as = primary(spot, spots).name  # the trace knows a shared module by its first name only
    calls = trace.sites.get(seen_as, [])
    if not calls:
        found, expected = "a connection that the example never called", "a connection that the model calls as a module"
        fix = "check the example; a weight that is used through torch.nn.functional cannot be delayed"
        raise ConfigError(spot.name, found, expected, fix)
    heard = [[h for h in trace.consumers(seen_as, c.number) if h[1].root == c.root] for c in calls]
    drives = sorted({path for found in heard for path, _ in found})
    neuron = drives[0] if drives else None
    leader = _leader(trace, neurons, neuron)
    going = leader is not None and (neurons[leader].goes_on or _streamed(leader, trace, neurons, drives))
    said = time_dim is not None
    time_dim = spot.time_dim if time_dim is None else time_dim
    streams = _streams(spot, calls, heard, trace, neurons, reset) if time_dim is None or going else 1
    calls_a_root = len(calls) / max(1, trace.roots) / streams
    steps = max(map(steps_of, heard))
    if time_dim is None:
        whole = any(neurons[path].style == "sequence" for path in drives) or _reads_sequence(calls[0], trace, neurons)
        if whole and calls_a_root <= 1:  # Norse's Lift calls it step by step, and the neuron once
            time_dim = 0
        elif steps > calls_a_root:  # one call is heard by many neuron steps: it holds a whole sequence, or a constant
            time_dim = time_dim_of(spot, calls[0], heard[0], steps)
    if time_dim is not None:
        timing = sequence_timing(spot, calls[0], time_dim, steps_of(heard[0]), reset)
        if said:
            check_is_time(spot, calls, heard, time_dim, neurons)
        if not going or spot.carried or reset not in ("auto", "follow"):
            return Decision(dataclasses.replace(timing, asked=reset == "root"), neuron)
        return Decision(dataclasses.replace(timing, policy="follow", streams=streams), neuron, leader)
    if spot.carried and reset in ("auto", "carried"):
        return Decision(Timing("carried"), neuron)
    if reset == "carried":
        raise _nobody_carries(spot)
    inside = trace.roots > 0 and not _goes_on(trace)
    if reset == "auto" and inside and calls_a_root <= 1 and _steps_less(trace, drives):
        raise outside_the_loop(spot)
    beats = tuple(beats_of(spot, calls, heard, trace, streams).items())
    reused = neuron is not None and is_reused(neuron, heard, trace)
    if reset in ("manual", "root"):
        return Decision(Timing(reset, None, streams, asked=True), neuron, None, beats, reused)
    if reset != "follow" and calls_a_root > 1 and inside and not going and not _kept(trace, drives):
        _check_inside(spot, calls)
        return Decision(Timing("root", None, streams), neuron, None, beats, reused)
    decision = _followed(spot, trace, neurons, neuron, streams, len(calls) // streams)
    return dataclasses.replace(decision, beats=beats, reused=reused)


def _check_inside(spot: Spot, calls: list[Call]) -> None:
    """Raise where the loop goes on when the model's forward is over: nobody would see a sequence end."""
    if any(call.outside for call in calls):
        found = "a call outside net(...), as of a forward that returns a generator"
        expected = "calls from inside the model's forward, where a sequence begins"
        raise HistoryError(spot.name, found, expected, f"run the loop in forward, or {ASK_MANUAL}")


def _leader(trace: Trace, neurons: dict[str, Neuron], neuron: str | None) -> str | None:
    """Name the neuron to follow: the one that a connection drives, else the model's first whose reset can be seen."""
    first = next((path for path in trace.order if neurons[path].follows), None)
    return first if neuron is None else neuron  # the root's own path is ""


def driven(spot: Spot, trace: Trace | None, spots: list[Spot]) -> tuple[str, ...]:
    """Name the neurons that hear a connection; its owner, for one inside a neuron."""
    if spot.owner is not None:
        return (spot.owner,)
    if trace is None:
        return ()
    seen_as = primary(spot, spots).name
    calls = trace.sites.get(seen_as, [])
    return tuple(sorted({path for c in calls for path, _ in trace.consumers(seen_as, c.number)}))


def rows_of(
    spot: Spot,
    decision: Decision,
    drives: tuple[str, ...],
    trace: Trace | None,
    neurons: dict[str, Neuron],
    spots: list[Spot],
) -> RowLayout:
    """Say where the rows of a connection's input are among those of the neurons that hear it, or that it follows."""
    if trace is None or spot.owner is not None:
        return "same"
    name, dim = primary(spot, spots).name, 1 if decision.timing.time_dim == 0 else 0

    def of(path: str) -> int:
        return 1 if neurons[path].style == "sequence" else 0

    seen: set[RowLayout] = set()
    for path in drives:
        seen |= trace.rows.layout("site", name, path, dim, of(path))
    if not drives and decision.follows is not None:
        seen = trace.rows.layout("state", decision.follows, name, of(decision.follows), dim)
    return joined(seen)


def _reads_sequence(call: Call, trace: Trace, neurons: dict[str, Neuron]) -> bool:
    """Tell whether a readout is given all that a sequence neuron put out: its rank and length, not a sum over time."""
    sources = [(path, n) for kind, path, n in call.tags if kind == "state" and neurons[path].style == "sequence"]
    heard = [trace.neurons[path][n].output_shape for path, n in sources]
    return any(len(s) == len(call.input_shape) and s[0] == call.input_shape[0] for s in heard)


def _steps_less(trace: Trace, drives: list[str]) -> bool:
    """Tell whether the neurons behind a connection step once a call of the model, and another one more often."""
    counts = {path: len(calls) / trace.roots for path, calls in trace.neurons.items()}
    return bool(drives) and all(counts[path] <= 1 for path in drives) and max(counts.values()) > 1


def _steps_once_from_rest(calls: list[Call]) -> bool:
    """Tell whether a neuron steps once a call of the model, which resets it before."""
    return len({call.root for call in calls}) == len(calls) and all(call.anew for call in calls)


def _without_time(spot: Spot, neuron: str) -> HistoryError:
    return HistoryError(
        spot.name, f"neuron {neuron!r} reset in every call of the model, in which it steps once: outside the time "
        "loop, where a delay of a step loses all input", "a neuron that goes on from step to step",
        "leave this layer out of the rules; or, if later calls go on, pass an example of several",
    )  # fmt: skip


def _kept(trace: Trace, paths: list[str]) -> bool:
    """Tell whether a neuron went on from the state that it had before the model was called."""
    heard = paths or list(trace.neurons)
    return any(call.kept for path in heard for call in trace.neurons[path])


def _streamed(leader: str, trace: Trace, neurons: dict[str, Neuron], drives: list[str]) -> bool:
    """Tell whether whole sequences are pieces of a longer one: a neuron that can be followed goes on from its own."""
    return neurons[leader].follows and bool(drives) and _kept(trace, drives)


def _goes_on(trace: Trace) -> bool:
    """Tell whether a sequence is fed in several calls of the model: a state of one call goes on in the next."""
    for calls in trace.neurons.values():
        roots: dict[int, set[int]] = {}
        for chain, call in zip(chains_of(calls), calls, strict=True):
            roots.setdefault(chain, set()).add(call.root)
        if any(len(seen) > 1 for seen in roots.values()):
            return True
    return False


def _owned(spot: Spot, reset: str, trace: Trace | None, neurons: dict[str, Neuron]) -> Decision:
    """Decide for a connection inside a neuron: the neuron sees every state that it is given."""
    owner = spot.owner
    assert owner is not None
    if spot.carried:
        if reset not in ("auto", "carried"):
            found = f"reset={reset!r} on a cell whose history rides in its state"
            fix = "leave reset out, and pass None where a sequence begins"
            raise ConfigError(spot.name, found, "reset='auto' or 'carried'", fix)
        if trace is not None and not all(call.handed for call in trace.neurons.get(owner, [])):
            found, expected = f"a call of {owner!r} that is something else", "output, state = neuron(input, state)"
            raise ConfigError(spot.name, found, expected, "give it that call, or let it keep its state in an attribute")
        check_state(neurons[owner], [] if trace is None else trace.neurons.get(owner, []))
        return Decision(Timing("carried"), owner)
    if reset == "carried":
        raise _nobody_carries(spot)
    if reset != "auto":
        return Decision(Timing(reset, asked=True), owner, owner)  # type: ignore[arg-type]
    calls = trace.neurons.get(owner, []) if trace is not None else []
    if not calls:
        raise NeedsExample(
            spot.name, "no example run that calls its neuron", "an example", "pass example=, or dk.At(..., reset=)"
        )
    assert trace is not None
    chains = chains_of(calls)
    order = [chains[c.number] for c in calls]
    if any(a > b for a, b in zip(order, order[1:], strict=False)):
        raise HistoryError(
            spot.name, "one neuron stepped on several interleaved streams", "one stream at a time",
            "run the streams one after the other, or use a copy of the neuron for each",
        )  # fmt: skip
    kept = neurons[owner].goes_on or _kept(trace, [owner])
    inside = len(calls) > trace.roots > 0 and not _goes_on(trace) and not kept
    policy = "root" if inside else "follow"
    return Decision(Timing(policy), owner, owner)  # type: ignore[arg-type]


def _nobody_carries(spot: Spot) -> ConfigError:
    return ConfigError(
        spot.name,
        "reset='carried'",
        "a connection whose history rides in a state that the caller carries (Norse)",
        "use reset='auto'",
    )


def _without_example(spot: Spot, reset: str, time_dim: int | None) -> Decision:
    if time_dim is not None:
        if -1 - channel_space(spot.module) <= time_dim < 0:
            found = f"time_dim={time_dim}, which is the channel or behind it"
            raise ShapeError(spot.name, found, "a dimension before the channel", "time_dim=0, where time comes first")
        return Decision(Timing(whole_policy(spot, reset), time_dim, asked=reset == "root"))
    if spot.carried and reset in ("auto", "carried"):
        return Decision(Timing("carried"))
    if reset in ("root", "manual"):
        return Decision(Timing(reset, asked=True))  # type: ignore[arg-type]
    fix = "pass example=: a batch, a tuple of arguments, or a function that runs one sequence"
    raise NeedsExample(spot.name, "no example, so nobody can tell where the time loop is", "an example", fix)


def _followed(
    spot: Spot, trace: Trace, neurons: dict[str, Neuron], neuron: str | None, streams: int, steps: int
) -> Decision:
    """Decide for a sequence that outlasts a call: the history is tied to a neuron whose reset can be seen."""
    leader = _leader(trace, neurons, neuron)
    if leader is None or not neurons[leader].follows:
        what = (
            f"neuron {leader!r} ({type(neurons[leader].module).__name__})"
            if leader is not None
            else "no neuron that delaykit knows"
        )
        found = f"a time loop outside the model and {what}, whose reset cannot be seen"
        expected = "a loop inside the model, or a neuron to follow, one that keeps its state itself"
        fix = ASK_MANUAL if leader is None else f"{IN_A_CONTAINER}; or {ASK_MANUAL}"
        raise HistoryError(spot.name, found, expected, fix)
    check_membranes(neurons[leader], trace.neurons[leader])
    if any(call.given == "fresh" for call in trace.neurons[leader]):
        found = f"a sequence of several calls of the model, in which {leader!r} is handed its state"
        raise HistoryError(spot.name, found, "a state that the neuron keeps itself", ASK_MANUAL)
    if neuron is not None and steps <= trace.roots and _steps_once_from_rest(trace.neurons[neuron]):
        raise _without_time(spot, neuron)
    others = [len(c) for c in trace.neurons.values()]
    if neuron is None and max(others) > steps:
        raise outside_the_loop(spot)
    _check_kept(leader, trace, neurons)
    return Decision(Timing("follow", None, streams), neuron, leader)


def _check_kept(leader: str, trace: Trace, neurons: dict[str, Neuron]) -> None:
    """Raise where an adapter finds no membrane behind any step of a neuron: each would seem to begin a sequence."""
    adapter, calls = neurons[leader].adapter, trace.neurons[leader]
    if calls and not any(call.left for call in calls):
        found = f"None behind all {len(calls)} steps of neuron {leader!r}, which follows"
        where = answer_of(adapter, "membrane")
        raise PluginError(where, found, "the tensor that the neuron keeps", "override membrane(), or follows=False")


def _streams(
    spot: Spot,
    calls: list[Call],
    heard: list[list[tuple[str, Call]]],
    trace: Trace,
    neurons: dict[str, Neuron],
    reset: str,
) -> int:
    """Count the streams that take turns on this connection within a step; refuse what cannot be told apart."""
    chains = {path: chains_of(found) for path, found in trace.neurons.items()}
    keys = [frozenset((path, chains[path][call.number]) for path, call in found) for found in heard]
    again = 1
    for root in sorted({c.root for c in calls}):
        stepped = [[h for h in heard[c.number] if neurons[h[0]].style == "step"] for c in calls if c.root == root]
        again = max(again, calls_a_step(spot, stepped, trace))
        mine = [keys[c.number] for c in calls if c.root == root and keys[c.number]]  # an unheard call tells nothing
        distinct = list(dict.fromkeys(mine))
        if len(distinct) > 1 and len(distinct) < len(mine):
            if reset == "manual":  # the user says where a sequence begins: several may follow in one run
                return _period(spot, mine)
            if mine == distinct * (len(mine) // len(distinct)):
                return len(distinct)
            if not _one_after_the_other(mine):
                raise _no_rotation(spot)
            return 1
        paths = {frozenset(path for path, _ in key) for key in mine}
        if len(distinct) > 1 and len(distinct) == len(mine) and len(paths) == len(mine):
            return len(distinct)  # a shared layer, called once for each of its neurons; the loop is outside
    return again


def _one_after_the_other(keys: list[frozenset[tuple[str, int]]]) -> bool:
    """Tell whether sequences of the same neurons follow each other; the neurons' resets, or an error, part them."""
    begins = [key for k, key in enumerate(keys) if k == 0 or key != keys[k - 1]]
    return len(begins) == len(set(begins)) and len({frozenset(path for path, _ in key) for key in begins}) == 1


def _period(spot: Spot, keys: list[frozenset[tuple[str, int]]]) -> int:
    """Return how many streams take turns, where one sequence may follow another with streams of its own."""
    period = next((k for k in range(1, len(keys)) if keys[k] == keys[0]), 1)
    rounds = [keys[k : k + period] for k in range(0, len(keys), period)]
    for k in range(1, len(rounds)):
        if rounds[k] != rounds[k - 1] and any(key in past for past in rounds[:k] for key in rounds[k]):
            raise _no_rotation(spot)
    return period


def _no_rotation(spot: Spot) -> HistoryError:
    return HistoryError(
        spot.name, "calls for several sequences or neurons inside one run of the model, in no fixed rotation",
        "one sequence a run, or streams that take turns at every step",
        "use dk.At(..., reset='manual') with dk.reset(net) between the sequences, or a copy of the layer",
    )  # fmt: skip
