"""How the calls of a connection and the steps of the neurons behind it go together, as the example showed it."""

from __future__ import annotations

from delaykit.attaching.adapter import Spot
from delaykit.errors import HistoryError
from delaykit.planning.trace import Call, Trace, chains_of

Heard = list[tuple[str, Call]]


def beats_of(spot: Spot, calls: list[Call], heard: list[Heard], trace: Trace, streams: int) -> dict[str, int]:
    """Return how often each neuron steps from one call of the connection to the next, of the same stream.

    0 for one that is called once for all of them, on a whole sequence.

    Args:
        spot: the connection.
        calls: those of it.
        heard: for each of its calls, the neuron calls that heard it.
        trace: what the example showed.
        streams: number of streams that take turns.

    Raises:
        HistoryError: it was left out in some steps of its neuron: a delay could count calls or steps. Or it is called
            for several steps before the neuron takes the first of them.
    """
    found: dict[str, int] = {}
    for path in sorted({path for some in heard for path, _ in some}):
        chains = chains_of(trace.neurons[path])
        _check_no_step_left_out(spot, path, heard, chains)
        rounds = [[c.number for p, c in some if p == path] for some in heard]
        roots = [next((c.root for p, c in some if p == path), None) for some in heard]
        gaps = {
            min(rounds[k + streams]) - min(rounds[k])
            for k in range(len(heard) - streams)
            if rounds[k] and rounds[k + streams] and roots[k] == roots[k + streams]
        }
        if gaps:
            _check_turns(spot, path, calls, rounds, streams)
        if len(gaps) == 1:
            found[path] = gaps.pop()
        elif not gaps:  # one step a call of the model
            steps = [c for c in trace.neurons[path] if c.root == (roots[0] or 0)]
            found[path] = max(1, len(steps))
    return found


def steps_of(heard: Heard) -> int:
    """Count the steps for which one call of a connection is heard: those of one of the neurons that it drives."""
    paths = [path for path, _ in heard]
    return max(map(paths.count, set(paths)), default=0)


def calls_a_step(spot: Spot, heard: list[Heard], trace: Trace) -> int:
    """Count the calls of a connection within one run that one and the same step of a neuron hears: each has a line.

    A neuron that steps less often than others sums up what comes over their steps: there a call is a step.

    Args:
        spot: the connection.
        heard: for each of its calls in this run of the model, the neuron calls that heard it.
        trace: what the example showed.

    Raises:
        HistoryError: some steps hear more of its calls than others.
    """
    steps = [frozenset((path, call.number) for path, call in some) for some in heard if some]
    begins = [k for k, step in enumerate(steps) if k == 0 or step != steps[k - 1]]
    if len(begins) == len(steps):
        return 1
    root = next(call.root for some in heard for _, call in some)
    if max(_longest(calls, root) for calls in trace.neurons.values()) > len(begins):
        return 1
    sizes = {b - a for a, b in zip(begins, [*begins[1:], len(steps)], strict=True)}
    if len(sizes) == 1:
        return sizes.pop()
    raise HistoryError(
        spot.name, f"a connection that is called {min(sizes)} to {max(sizes)} times within a step of one neuron: its "
        "delays could count its own calls or the neuron's steps", "as many calls in each step",
        "call it as often in every step, with zeros where it has no input; or add its inputs up first",
    )  # fmt: skip


def _longest(calls: list[Call], root: int) -> int:
    """Count the steps of the longest stream of a neuron within one run of the model."""
    counts: dict[int, int] = {}
    for chain, call in zip(chains_of(calls), calls, strict=True):
        counts[chain] = counts.get(chain, 0) + (call.root == root)
    return max(counts.values(), default=0)


def is_reused(path: str, heard: list[Heard], trace: Trace) -> bool:
    """Tell whether a neuron also runs layers that do not hear this connection, each with a state of its own."""
    chains = chains_of(trace.neurons[path])
    mine = {chains[c.number] for some in heard for p, c in some if p == path}
    roots = {c.root for some in heard for p, c in some if p == path}
    return any(chain not in mine for chain, call in zip(chains, trace.neurons[path], strict=True) if call.root in roots)


def _check_turns(spot: Spot, path: str, calls: list[Call], rounds: list[list[int]], streams: int) -> None:
    """Raise where a call comes before its neuron has stepped on the one before: all calls of a sequence in advance."""
    pairs = zip(calls, calls[streams:], rounds, rounds[streams:], strict=False)
    for one, two, heard, later in pairs:
        apart = heard and later and min(heard) < min(later)
        if apart and one.root == two.root and one.steps.get(path, 0) == two.steps.get(path, 0):
            raise HistoryError(
                spot.name,
                f"a connection that is called several times before neuron {path!r} steps on what came of it: nothing "
                "would tell a call too many, or one left out, from the next step",
                "a call, then the neuron's step, and so on; or one call with the whole sequence",
                "call it within the neuron's loop (for step in x: ... lif(fc(step))); or give it the whole sequence, "
                "time in a dimension of its own (currents = fc(x), then the loop)",
            )


def _check_no_step_left_out(spot: Spot, path: str, heard: list[Heard], chains: list[int]) -> None:
    place: dict[int, int] = {}
    counts: dict[int, int] = {}
    for number, chain in enumerate(chains):
        place[number] = counts.get(chain, 0)
        counts[chain] = place[number] + 1
    last: dict[int, int] = {}
    for some in heard:
        for number in sorted(c.number for p, c in some if p == path)[:1]:
            chain, now = chains[number], place[number]
            if chain in last and now - last[chain] > 1:
                raise HistoryError(
                    spot.name,
                    f"a connection that the example leaves out in {now - last[chain] - 1} step(s) of neuron {path!r}: "
                    "its delays could count its own calls or the neuron's steps",
                    "one call at every step",
                    "call it at every step, with zeros where it has no input",
                )
            last[chain] = now
