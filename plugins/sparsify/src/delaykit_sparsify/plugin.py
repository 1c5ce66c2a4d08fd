"""Entry point of the plugin: records only; what they name is imported on first use."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

from delaykit import Component, Operator, hookimpl

DELAYKIT_API = 1
DELAYKIT_NAMES = ("compact_",)  # to begin with, besides the components' classes


@hookimpl
def delaykit_components() -> Iterator[Component]:
    """Yield dynamic sparsification and the pruning of delays."""
    yield Component(
        kind="pruning",
        name="dynamic_sparsity",
        config="delaykit_sparsify.config:DynamicSparsity",
        summary="zeros written into the weight after each epoch, with regrowth",
        paper="Lennart P. L. Landsmeer, Amirreza Movahedin, Mario Negrello, Said Hamdioui and Christos Strydis 2025, "
        "Spatial spiking neural networks enable efficient and robust temporal computation, arXiv 2512.10011",
    )
    yield Component(
        kind="pruning",
        name="delay_pruning",
        config="delaykit_sparsify.delay_pruning:DelayPruning",
        summary="delays of weak use fall to 0 while the synapses stay",
    )


@hookimpl
def delaykit_operators() -> Iterator[Operator]:
    """Yield the delivery of spikes through sparse synapses."""
    for name, function in (("sparsify_filter", "sparse_filter"), ("sparsify_deliver", "deliver")):
        for backend, file in (("reference", "reference"), ("torch", "torch"), ("cpu", "numba")):
            yield Operator(name, backend, f"delaykit_sparsify.{file}:{function}")
    yield Operator("sparsify_rollout", "reference", "delaykit_sparsify.reference:rollout")
    yield Operator("sparsify_rollout", "torch", "delaykit_sparsify.rollout:step_by_step")
    yield Operator("sparsify_rollout", "cpu", "delaykit_sparsify.rollout:by_rows")


@hookimpl
def delaykit_health() -> Iterator[tuple[str, bool, str]]:
    """Say whether compact connections run compiled on the CPU."""
    fast = importlib.util.find_spec("numba") is not None
    yield "sparsify: compiled kernels", fast, "numba" if fast else "slow without numba: pip install 'delaykit[fast]'"
