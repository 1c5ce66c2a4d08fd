"""Entry point of the plugin: records only; what they name is imported on first use."""

from __future__ import annotations

from collections.abc import Iterator

from delaykit import Component, hookimpl

DELAYKIT_API = 1


@hookimpl
def delaykit_components() -> Iterator[Component]:
    """Yield the recurrent delay and the feed-forward preset."""
    yield Component(
        kind="delay",
        name="delrec",
        config="delaykit_delrec.config:DelRec",
        summary="learned recurrent delays whose triangle narrows while they train",
        paper="Alexandre Queant, Ulysse Rançon, Benoit R. Cottereau and Timothée Masquelier 2025, DelRec: learning "
        "delays in recurrent spiking neural networks, arXiv 2509.24852",
    )
    yield Component(
        kind="delay",
        name="dcls",
        config="delaykit_delrec.dcls:DCLS",
        summary="feed-forward delays in a window of K steps, gaussian while they train",
        paper="Ilyass Hammouamri, Ismail Khalfaoui-Hassani and Timothée Masquelier 2024, Learning Delays in Spiking "
        "Neural Networks using Dilated Convolutions with Learnable Spacings, ICLR, arXiv 2306.17670",
    )
