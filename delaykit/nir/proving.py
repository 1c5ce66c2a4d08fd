"""Proofs on the example: a node fires the spikes of its neuron, and a graph those of its network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from delaykit.errors import ConfigError
from delaykit.nir.neurons import read_neuron
from delaykit.nir.observing import Observed, Part
from delaykit.nir.reading import from_nir

FIRST_STEPS = 5
NEAR = {torch.float64: 1e-9, torch.float32: 1e-4}  # of a threshold: where rounding may decide


def prove(part: Part, nodes: list[Any], dt: float, subtract: bool) -> None:
    """Compare the node's spikes in the example with the neuron's; what rounding may decide is not held against it."""
    if len(nodes) > 1 or part.neuron is None or len(part.inputs) != len(part.outputs):
        return
    twin = read_neuron(part.name, nodes[0], dt, subtract)
    if not twin.dynamics.spiking:
        return
    drive, state = part.inputs.double().flatten(2), None
    fired = part.outputs.double().flatten(2)
    open_ = torch.ones_like(drive[0], dtype=torch.bool)
    for step in range(len(drive)):
        spikes, after = twin.dynamics.step(drive[step], state or twin.dynamics.start(drive[step]))
        differs = open_ & (spikes != fired[step])
        if bool(differs.any()) and not _by_rounding(part, twin, drive[: step + 1], differs):
            found = f"spikes that its node would not fire ({int(differs.sum())} in step {step} of the example)"
            fix = "avoid membranes beyond twice the threshold (subtracting resets), or use reset_mechanism='zero'"
            raise ConfigError(part.name, found, "the spikes of NIR's equations", fix)
        open_ &= ~differs
        state = after


def _by_rounding(part: Part, twin: Any, drive: Tensor, differs: Tensor) -> bool:
    tolerance = NEAR.get(part.inputs.dtype, 1e-2)
    nudged = [_fires(twin, drive * (1 + sign * tolerance) + sign * tolerance)[differs] for sign in (-1, 1)]
    return bool((nudged[0] != nudged[1]).all())


def _fires(twin: Any, drive: Tensor) -> Tensor:
    state = twin.dynamics.start(drive[0])
    for current in drive[:-1]:
        _, state = twin.dynamics.step(current, state)
    return twin.dynamics.step(drive[-1], state)[0]


def prove_whole(seen: Observed, graph: Any, fired: Mapping[str, str]) -> None:
    """Run the graph on the example's input and compare every neuron's spikes, in float32 before rounding adds up.

    Args:
        seen: the network.
        graph: what was written.
        fired: the node whose output is a neuron's, by the neuron's path.

    Raises:
        ConfigError: other spikes.
    """
    parts = seen.parts
    first = next(part for part in parts.values() if not part.sources)
    steps = len(first.inputs) if first.inputs.dtype == torch.float64 else FIRST_STEPS
    with torch.no_grad():
        found = from_nir(graph).run(first.inputs[:steps].double())
    for part in parts.values():
        values = found[fired[part.name]] if part.name in fired else None
        if values is None or not bool(((values == 0) | (values == 1)).all()):
            continue
        differ = values != part.outputs[:steps].double()
        if bool(differ.any()):
            step = int(differ.flatten(1).any(1).nonzero()[0])
            what = f"other spikes in the graph than in the example, first in step {step}"
            fix = "give a recurrence of your own no bias (NIR's is silent in the first step), or use dk.Recurrent"
            raise ConfigError(part.name, what, "the same spikes", fix)
