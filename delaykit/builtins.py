"""What ships with the core, registered through the same hook as any plugin."""

from __future__ import annotations

from collections.abc import Iterator

from delaykit.hookspecs import hookimpl
from delaykit.records import API_VERSION, Component

DELAYKIT_API = API_VERSION


@hookimpl
def delaykit_components() -> Iterator[Component]:
    """Yield the free delay and the adapters for snnTorch, Norse and plain torch modules."""
    yield Component(
        "delay",
        "free",
        "delaykit.delays:FreeDelay",
        "one delay per layer, pre neuron, post neuron or synapse; fixed or learned",
        "Hammouamri, Khalfaoui-Hassani and Masquelier 2024, Learning Delays in Spiking Neural Networks using Dilated "
        "Convolutions with Learnable Spacings, ICLR, arXiv 2306.17670",
    )
    yield Component("adapter", "snntorch", "delaykit.adapters.snntorch:SnnTorchAdapter", "snnTorch neurons and layers")
    yield Component("adapter", "norse", "delaykit.adapters.norse:NorseAdapter", "Norse cells and SequentialState")
    yield Component("adapter", "torch", "delaykit.adapters.plain:TorchAdapter", "plain torch modules, own neurons")
