"""Delays against the length of the example: what arrives after its end is lost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from delaykit.interfaces import PointDelay
from delaykit.planning.trace import Trace
from delaykit.synapse import Synapse


def too_late(sites: Sequence[Any], built: Mapping[str, Synapse | None], trace: Trace | None) -> Iterator[str]:
    """Yield a sentence for each connection of which some delays are as long as the example, or longer.

    Delays are drawn as ``wrap_`` would draw them, with a seed of their own, so that shares are approximate. Where the
    time loop is outside, an example is a step, and its length says nothing.

    Args:
        sites: of the plan.
        built: their synapses by site name, None where one could not be built.
        trace: of the example; None: there was none.
    """
    for entry in sites:
        synapse, steps = built.get(entry.site.name), _steps(entry, trace)
        if synapse is None or steps is None or not isinstance(synapse.delay, PointDelay):
            continue
        with torch.no_grad():
            late = synapse.delay.delays().double() >= steps
        if late.any():
            share, dt = 100 * float(late.double().mean()), entry.site.dt_ms
            length = f"{steps} steps" + (f" ({steps * dt:g} ms)" if dt is not None else "")
            yield (
                f"{entry.site.name}: about {share:.0f} % of its delays are as long as the example, {length}, or "
                "longer: such a spike never arrives in it. Lower max_delay (or the scale of positions), or pass an "
                "example of full length"
            )


def _steps(entry: Any, trace: Trace | None) -> int | None:
    """Count the steps of the example at a connection; None where the loop is outside."""
    if trace is None:
        return None
    calls = trace.sites.get(entry.site.name, [])
    if entry.timing.time_dim is not None:
        return int(calls[0].input_shape[entry.timing.time_dim]) if calls else None
    if entry.timing.policy == "manual":  # who knows what a sequence is
        return None
    heard = len(calls) or max((len(trace.neurons.get(path, [])) for path in entry.drives), default=0)
    runs = trace.roots if entry.timing.policy == "root" else 1
    steps = heard // max(1, entry.timing.streams * runs)
    return steps if steps > 1 else None
