"""Entry point of the plugin. It has layers of its own, not parts of a wrapped synapse, so it registers no component."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

from delaykit import Component, Operator, hookimpl

DELAYKIT_API = 1
DELAYKIT_NAMES = ("MultiSpikeLIF", "PotentialReadout", "Events", "TimingNet")  # to begin with
DELAYKIT_PAPER = (
    "Kakei Yamamoto, Yusuke Sakemi and Kazuyuki Aihara 2022, Timing-based backpropagation in spiking neural networks "
    "without single-spike restrictions, arXiv 2211.16113"
)


@hookimpl
def delaykit_components() -> Iterator[Component]:
    """Yield nothing: an event layer takes the delays of other plugins and brings none."""
    return iter(())


@hookimpl
def delaykit_operators() -> Iterator[Operator]:
    """Yield the layer of exact spike times, forwards and backwards."""
    for name, function in (("timing_spikes", "run"), ("timing_gradients", "gradients")):
        for backend, file in (("reference", "reference"), ("torch", "torch"), ("cpu", "numba")):
            yield Operator(name, backend, f"delaykit_timing.{file}:{function}")


@hookimpl
def delaykit_health() -> Iterator[tuple[str, bool, str]]:
    """Say whether event layers run compiled on the CPU."""
    fast = importlib.util.find_spec("numba") is not None
    yield "timing: compiled kernels", fast, "numba" if fast else "slow without numba: pip install 'delaykit[fast]'"
