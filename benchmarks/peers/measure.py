"""One peer, one work item, in a process of its own: results first, then times; prints one line of JSON.

    yes '' | head -n ROUNDS | python benchmarks/peers/measure.py PEER WORK FILE

Each line on standard input asks for one round, and ``ready`` answers when the next may come: so the rounds of several
peers are taken in turn, and a machine that slows down slows them all. A way of a peer whose spikes differ from the
equations' in more than one of 1000 is not timed (rounding moves a spike across the threshold now and then). A way that
has delays is compared with what it names itself as its judge. Times are process-CPU milliseconds of a forward and a
backward pass, by one thread; the first call, with what it compiles, apart.
"""

from __future__ import annotations

import importlib
import json
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from work import WORKS, Work, judged, read


class Way(NamedTuple):
    """One way in which a peer does a work item.

    Args:
        name: what the tables call it.
        run: gives the spikes of the last layer.
        parameters: what gets gradients.
        reset: ``next`` or ``same``: which equations it has; empty: none, it is a floor and has no spikes.
        judge: gives the spikes that it should have, where it has delays; None: those of the equations.
    """

    name: str
    run: Callable[[Tensor], Tensor]
    parameters: list[Tensor]
    reset: str
    judge: Callable[[Tensor], Tensor] | None = None


Ways = Callable[[Work, dict[str, Tensor]], Iterator[Way]]


def train(way: Way, x: Tensor, cotangent: Tensor) -> float:
    """Process-CPU milliseconds of a forward and a backward pass."""
    for parameter in way.parameters:
        parameter.grad = None
    start = time.process_time()
    (way.run(x) * cotangent).sum().backward()
    return 1e3 * (time.process_time() - start)


def differing(way: Way, work: Work, tensors: dict[str, Tensor]) -> float:
    """Share of spikes that differ from what they should be."""
    if not way.reset:
        return 0.0
    with torch.no_grad():
        spikes = way.run(tensors["x"]).double()
        wanted = judged(work, tensors, way.reset) if way.judge is None else way.judge(tensors["x"]).double()
    if not 0.005 < float(wanted.mean()) < 0.5:
        raise SystemExit(f"{way.name}: {float(wanted.mean()):.4f} spikes a step are no test")
    return float((spikes != wanted).double().mean())


def ready() -> None:
    """Tell that the next round may be asked for."""
    sys.stdout.write("\nready\n")
    sys.stdout.flush()


def main(peer: str, name: str, file: str) -> None:
    torch.set_num_threads(1)
    work, tensors = WORKS[name], read(Path(file))
    ways, first, rows = list(importlib.import_module(peer).ways(work, tensors)), {}, []
    for way in ways:
        first[way.name] = train(way, tensors["x"], tensors["cotangent"])
    faults = {way.name: differing(way, work, tensors) for way in ways}
    times: dict[str, list[float]] = {way.name: [] for way in ways}
    sound = [way for way in ways if faults[way.name] <= 1e-3]
    ready()
    for _ in sys.stdin:
        for way in sound:
            times[way.name].append(train(way, tensors["x"], tensors["cotangent"]))
        ready()
    for way in ways:
        spent = sorted(times[way.name])
        row = {"way": way.name, "differ": faults[way.name], "first_ms": first[way.name]}
        if spent:
            row |= {"ms": statistics.median(spent), "least_ms": spent[0], "most_ms": spent[-1]}
        rows.append(row)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    sys.stdout.write("\n" + json.dumps({"rows": rows, "peak_mb": peak, "torch": torch.__version__}) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
