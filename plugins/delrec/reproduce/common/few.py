"""Networks with few synapses, or few delays: what is cut at the start stays 0 through training."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from common.networks import Net


def cut(net: Net, synapses: float, delays: float, seed: int) -> Callable[[], None]:
    """Set a random share of the hidden layers' weights, or of their delays, to 0; the same ones for one seed.

    Args:
        net: wrapped or not.
        synapses: share of each weight matrix that is left, in (0, 1].
        delays: share of the delays of each recurrent connection that is left; the others are 0.
        seed: of the draw; a pair of frozen and learned delays has one.

    Returns:
        What is to be called after each step of the optimizer: it writes the zeros again.
    """
    generator, kept = torch.Generator().manual_seed(10_000 + seed), []

    def keep(values: Tensor, share: float) -> None:
        if share < 1:
            count = max(1, round(share * values.numel()))
            mask = torch.zeros(values.numel())
            mask[torch.randperm(values.numel(), generator=generator)[:count]] = 1.0
            kept.append((values, mask.view_as(values)))

    for layer in net.layers:
        connections = [layer.fc, *([] if layer.recurrent is None else [layer.recurrent])]
        for connection in connections:
            keep(connection.weight, synapses)
        if layer.recurrent is not None and hasattr(layer.recurrent, "dk"):
            keep(layer.recurrent.dk.delay.delay, delays)

    @torch.no_grad()
    def write() -> None:
        for values, mask in kept:
            values.mul_(mask)

    write()
    return write
