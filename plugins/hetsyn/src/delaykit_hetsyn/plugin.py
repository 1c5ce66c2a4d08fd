"""Entry point of the plugin: records only; what they name is imported on first use."""

from __future__ import annotations

from collections.abc import Iterator

from delaykit import Component, Operator, hookimpl

DELAYKIT_API = 1
DELAYKIT_NAMES = ("HetSynLIF", "HetSynNet")  # to begin with, besides the components' classes


@hookimpl
def delaykit_components() -> Iterator[Component]:
    """Yield the synapse-specific time constants."""
    yield Component(
        kind="heterogeneity",
        name="hetsyn",
        config="delaykit_hetsyn.config:HetSyn",
        summary="a learned time constant for each synapse",
        paper="Zhichao Deng, Zhikun Liu, Junxue Wang, Shengqian Chen, Xiang Wei and Qiang Yu 2025, HetSyn: versatile "
        "timescale integration in spiking neural networks via heterogeneous synapses, arXiv 2508.11644",
    )


@hookimpl
def delaykit_operators() -> Iterator[Operator]:
    """Yield the rollout of a layer, forwards and backwards."""
    for name, function in (("hetsyn_rollout", "rollout"), ("hetsyn_rollout_adjoint", "adjoint")):
        for backend, file in (("reference", "reference"), ("torch", "torch"), ("cpu", "numba")):
            yield Operator(name, backend, f"delaykit_hetsyn.{file}:{function}")
