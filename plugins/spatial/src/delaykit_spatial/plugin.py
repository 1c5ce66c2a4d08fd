"""Entry point of the plugin: records only; what they name is imported on first use."""

from __future__ import annotations

from collections.abc import Iterator

from delaykit import Component, Operator, hookimpl

DELAYKIT_API = 1


@hookimpl
def delaykit_components() -> Iterator[Component]:
    """Yield the delay that follows from where neurons are."""
    yield Component(
        kind="delay",
        name="spatial",
        config="delaykit_spatial.config:Spatial",
        summary="delays that are distances between learned positions of neurons, in any number of dimensions",
        paper="Lennart P. L. Landsmeer, Amirreza Movahedin, Mario Negrello, Said Hamdioui and Christos Strydis 2025, "
        "Spatial spiking neural networks enable efficient and robust temporal computation, arXiv 2512.10011",
    )


@hookimpl
def delaykit_operators() -> Iterator[Operator]:
    """Yield the two operators of exact spike times."""
    for name in ("arrivals", "rollout"):
        for backend, file in (("reference", "reference"), ("torch", "torch"), ("cpu", "numba")):
            yield Operator(f"spatial_exact_{name}", backend, f"delaykit_spatial.exact.{file}:{name}")
