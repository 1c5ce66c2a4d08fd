"""Entry point of the plugin: records only; what they name is imported on first use."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator

from delaykit import Component, hookimpl

DELAYKIT_API = 1


@hookimpl
def delaykit_components() -> Iterator[Component]:
    """Yield the adapter."""
    yield Component(
        kind="adapter",
        name="spikingjelly",
        config="delaykit_spikingjelly.adapter:SpikingJellyAdapter",
        summary="SpikingJelly's activation-based neurons, layers and containers",
        paper="Wei Fang et al. 2023, SpikingJelly: an open-source infrastructure platform for spike-based "
        "intelligence, Science Advances 9(40), doi 10.1126/sciadv.adi1480",
    )


@hookimpl
def delaykit_health() -> Iterator[tuple[str, bool, str]]:
    """Say which SpikingJelly is there."""
    try:
        version = importlib.metadata.version("spikingjelly")
    except importlib.metadata.PackageNotFoundError:
        yield "spikingjelly", False, "pip install 'spikingjelly>=2.0.0'"
        return
    yield "spikingjelly", not version.startswith("0."), version
