"""From a network to a NIR graph: exact, or an error that says what the graph could not hold."""

from __future__ import annotations

import math
import tempfile
from numbers import Real
from pathlib import Path
from typing import Any, Literal

from torch import nn

import delaykit
from delaykit import checks
from delaykit.errors import CheckpointError, ConfigError
from delaykit.nir.building import Building
from delaykit.nir.connections import Fractions, Writing
from delaykit.nir.observing import Observed, observe
from delaykit.nir.proving import prove_whole
from delaykit.nir.values import nir_package
from delaykit.sealed import commit

Reset = Literal["value", "subtract"]


def to_nir(
    net: nn.Module,
    example: Any,
    dt_ms: float | None = None,
    *,
    reset: Reset = "value",
    fractions: Fractions = "refuse",
    path: str | Path | None = None,
) -> Any:
    """Write a network, wrapped or bare, as a graph of the Neuromorphic Intermediate Representation.

    The example is run once to see who hears whom. What the first layer was given is compared with what the model was
    called with, what each other layer was given with the sum of what its sources returned, each neuron's spikes with
    those of the node that was written for it. Where a callable runs layers and never the model itself, nothing is known
    of the model's input, and the graph begins at what the first layer was given.

    Args:
        net: a model of snnTorch, Norse or plain modules. It is left as it was, spikes under way included.
        example: one sequence, in which neurons fire: a batch, a tuple of arguments, or a callable without arguments.
        dt_ms: length of a step in milliseconds, > 0; may be left out where the library says it (Norse).
        reset: ``"value"``: spikes set the membrane to a value, the only reset that NIR knows. ``"subtract"`` lets
            neurons pass that subtract their threshold: the metadata says so, and a simulator must be told
            (``reset_mode`` of sc-neurocore). snnTorch's differ where a membrane passes twice its threshold in a step.
        fractions: ``"refuse"`` delays between two steps, and spreads; ``"taps"`` writes each spike as it is shared
            between steps, exactly, with a weight a tap.
        path: also write the graph to this ``.nir`` file, whole or not at all; folders are made.

    Returns:
        A ``nir.NIRGraph``. Delays are in seconds; ``metadata["dt"]`` of the graph is a step.

    Raises:
        ConfigError: the graph could not hold the network exactly; the message says what and how to go on.
        CheckpointError: the file cannot be written; what was there before still is.

    Example:
        >>> import torch, snntorch as snn, delaykit as dk
        >>> lif = snn.Leaky(beta=0.9, reset_mechanism="zero", reset_delay=False, init_hidden=True)
        >>> net = torch.nn.Sequential(torch.nn.Linear(2, 3, bias=False), lif)
        >>> rules, step = {"0": dk.FreeDelay("axonal", init=[1, 4])}, torch.ones(1, 2)
        >>> _ = dk.wrap_(net, rules, example=step)
        >>> graph = dk.to_nir(net, example=step, dt_ms=1.0)
        >>> graph.nodes["layer_0_delay"].delay.tolist()
        [0.001, 0.004]

    Reference:
        Pedersen et al. 2024, Neuromorphic intermediate representation, Nature Communications 15, 8122.
    """
    checks.is_model("to_nir", net)
    nir = nir_package()
    for name, value, choices in (("reset", reset, ("value", "subtract")), ("fractions", fractions, ("refuse", "taps"))):
        checks.choice(f"to_nir {name}", value, choices)
    seen = observe(net, example)
    dt = _step_length(seen, dt_ms)
    builder = Building(seen, Writing(dt, fractions), reset == "subtract")
    metadata = {"dt": dt, "reset": reset, "writer": f"delaykit {delaykit.__version__}"}
    graph = nir.NIRGraph(*builder.build(), metadata=metadata)
    prove_whole(seen, graph, builder.fired())
    if path is not None:
        _write(graph, path)
    return graph


def _write(graph: Any, path: str | Path) -> None:
    """Write a file whole or not at all: HDF5 is written in pieces."""
    try:
        with tempfile.TemporaryDirectory() as folder:
            part = Path(folder) / "graph.nir"
            nir_package().write(str(part), graph)
            payload = part.read_bytes()
    except OSError as problem:
        found, fix = f"a temporary file that cannot be written ({problem})", "free some space, or set TMPDIR"
        raise CheckpointError(str(path), found, "space for the file", fix) from problem
    commit(Path(path), payload)


def _step_length(seen: Observed, dt_ms: float | None) -> float:
    known = {p.name: p.neuron.dt_ms for p in seen.parts.values() if p.neuron is not None and p.neuron.dt_ms is not None}
    if dt_ms is None:
        if not known:
            raise ConfigError(
                "to_nir dt_ms", "None, and a library that counts steps", "milliseconds a step", "pass dt_ms="
            )
        dt_ms = next(iter(known.values()))
    if isinstance(dt_ms, bool) or not isinstance(dt_ms, Real) or not 0 < dt_ms < checks.LARGEST:
        fix = "pass how many ms a step is, e.g. dt_ms=1.0"
        raise ConfigError("to_nir dt_ms", checks.shown(dt_ms), "a finite number of milliseconds > 0", fix)
    dt_ms = float(dt_ms)
    for name, own in known.items():
        if own is not None and not math.isclose(own, dt_ms, rel_tol=1e-9):
            raise ConfigError(
                name, f"a step of {own:g} ms", f"{dt_ms:g} ms, the dt_ms of the graph", "give both one step"
            )
    return dt_ms / 1000
