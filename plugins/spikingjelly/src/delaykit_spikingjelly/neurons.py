"""What a delayed current means to each neuron of SpikingJelly 2.0, as measured by the tests of this plugin.

A neuron is supported where currents add up: what it keeps after a step is affine in the current of that step. Then a
spike that arrives later is a current at that later step, and nothing else. Membranes need not be linear for that (QIF,
EIF, Izhikevich), nor spikes binary (ternary, integer and analog ones).
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from delaykit.adapters import original_class

LIBRARY = "spikingjelly.activation_based"

ADDITIVE: tuple[str, ...] = (
    "ActivationAwareIFNode", "CUBALIFNode", "ComplementaryLIFNode", "EIFNode", "HalfThresholdIFNode", "IFNode",
    "ILIFNode", "IzhikevichNode", "LIAFNode", "LIFNode", "NonSpikingIFNode", "NonSpikingLIFNode", "ParametricLIFNode",
    "QIFNode", "RAFNode", "SimpleIFNode", "SimpleLIFNode", "TernaryIFNode", "TernaryLIFNode",
)  # fmt: skip
"""Neurons whose current adds up."""

_RATE = "it codes an activation as a number of spikes: there is no time in which one of them could be late"
_GRADIENT = "its gradient is that of a mean rate, which knows no time: a delay would learn nothing"
_ONLINE = "it cuts the graph at every step, so no gradient comes back from a spike that arrives later"
_INSIDE = "it joins its neurons by a connection of its own, and writes into the current that it is given"
_NOISE = "it adds noise that is drawn for one length of sequence and is no function of its input"
_PARALLEL = "it is a product over a window of inputs, without a membrane that says where a sequence began"

REFUSED: dict[str, str] = {
    "DSRIFNode": _GRADIENT,
    "DSRLIFNode": _GRADIENT,
    "FewSpikeNode": _RATE,
    "FlexSN": "its equations are the user's own: write an adapter that says where its membrane is",
    "GatedLIFNode": "it weighs its current by a factor learned for each step, so a late spike is not the same spike",
    "HGNode": _RATE,
    "ILCCUBALIFNode": _INSIDE,
    "ILCIFNode": _INSIDE,
    "ILCLIFNode": _INSIDE,
    "KLIFNode": "it rectifies its membrane: currents do not add up, two halves of one are not the whole",
    "MPBNLIFNode": "it normalises its membrane over the batch: currents do not add up",
    "MaskedPSN": _PARALLEL,
    "NoisyCUBALIFNode": _NOISE,
    "NoisyILCCUBALIFNode": _INSIDE,
    "NoisyNonSpikingIFNode": _NOISE,
    "OTTTLIFNode": _ONLINE,
    "OutlierAwareThresholdNode": _RATE,
    "PSN": "its output hears later inputs: there is no step at which a spike could be late",
    "SLTTLIFNode": _ONLINE,
    "STBIFNode": _RATE,
    "SlidingPSN": _PARALLEL,
}
"""Neurons that a delayed connection must not lead to, and why not."""


def kind_of(module: nn.Module) -> str | None:
    """Name SpikingJelly's class of a neuron, also of one that a user derived from it; None for anything else."""
    for base in original_class(module).__mro__:
        if base.__module__.startswith(f"{LIBRARY}.neuron."):
            return base.__name__
    return None


def memories_of(module: Any) -> list[Tensor]:
    """Return the states that a neuron keeps between its calls, its membrane first; none before its first call."""
    return [value for value in vars(module).get("_memories", {}).values() if isinstance(value, Tensor)]
