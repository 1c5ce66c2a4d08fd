"""Entry point of the plugin: records only; what they name is imported on first use."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

from delaykit import Component, Operator, hookimpl

DELAYKIT_API = 1
DELAYKIT_NAMES = ("MotifMemory",)  # to begin with, besides the components' classes


@hookimpl
def delaykit_components() -> Iterator[Component]:
    """Yield the motif tensor, a weight for each synapse and each delay."""
    yield Component(
        kind="delay",
        name="motif",
        config="delaykit_motifs.config:Motif",
        summary="one weight for each synapse and each of D delays",
        paper="Laurent U. Perrinet 2026, Working memory in a recurrent spiking neural networks with heterogeneous "
        "synaptic delays, arXiv 2604.14096",
    )


@hookimpl
def delaykit_operators() -> Iterator[Operator]:
    """Yield the sums over taps and the network that runs by itself."""
    for name in ("tapped_linear", "tapped_adjoint", "tapped_correlation", "window_read", "free_run"):
        for backend, file in (("reference", "reference"), ("torch", "torch"), ("cpu", "numba")):
            yield Operator(f"motifs_{name}", backend, f"delaykit_motifs.backends.{file}:{name}")


@hookimpl
def delaykit_health() -> Iterator[tuple[str, bool, str]]:
    """Say whether sparse spikes run event by event."""
    fast = importlib.util.find_spec("numba") is not None
    yield "motifs: event-driven kernels", fast, "numba" if fast else "slow without numba: pip install 'delaykit[fast]'"
