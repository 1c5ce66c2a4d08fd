"""What is compared: the same network with and without recurrence and delays, at equal numbers of parameters."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch

import delaykit as dk
from common.networks import Net, Shape
from delaykit_delrec import DCLS, DelRec


@dataclasses.dataclass(frozen=True)
class Variant:
    """One kind of network.

    Args:
        name: for tables and files.
        recurrent: whether the recurrent layers keep their recurrent connection.
        control: ``DelRec``'s control for it; None: left bare.
        forward: ``DCLS``'s control for the feed-forward connections; None: left bare.
        adaptive: whether neurons of recurrent layers have an adaptive threshold.
    """

    name: str
    recurrent: bool
    control: str | None = None
    forward: str | None = None
    adaptive: bool = False


VARIANTS = (
    Variant("no recurrence", recurrent=False),
    Variant("recurrence, no delays", recurrent=True),
    Variant("frozen random delays", recurrent=True, control="frozen"),
    Variant("learned delays", recurrent=True, control="learned"),
    Variant("frozen feed-forward delays", recurrent=False, forward="frozen"),
    Variant("feed-forward delays", recurrent=False, forward="learned"),
    Variant("both", recurrent=True, control="learned", forward="learned"),
    Variant("adaptive neurons, no delays", recurrent=True, adaptive=True),
)


def make(variant: Variant, channels: int, classes: int, shape: Shape, delrec: DelRec, dcls: DCLS, seed: int) -> Net:
    """Build and wrap one network; weights and delays come from the seed."""
    torch.manual_seed(seed)
    recurrent = tuple(variant.recurrent and wanted for wanted in shape.recurrent)
    net = Net(channels, classes, dataclasses.replace(shape, recurrent=recurrent), variant.adaptive)
    rules: dict[str, dk.At] = {}
    for k, layer in enumerate(net.layers):
        if variant.control and layer.recurrent is not None:
            config = dataclasses.replace(delrec, control=variant.control)
            rules[f"layers.{k}.recurrent"] = dk.At(config, reset="manual")
        if variant.forward:
            config = dataclasses.replace(dcls, control=variant.forward)
            rules[f"layers.{k}.fc"] = dk.At(config, time_dim=0, reset="root")
    if rules:
        generator = torch.Generator().manual_seed(seed)
        dk.wrap_(net, rules, example=lambda: call_connections(net, channels), generator=generator)
    return net


def call_connections(net: Net, channels: int) -> None:
    """Call every connection once: the fused layers read the recurrent weights, which no plan could see."""
    net(torch.zeros(5, 2, channels))
    for layer in net.layers:
        if layer.recurrent is not None:
            layer.recurrent(torch.zeros(2, layer.recurrent.in_features))


def count(net: Net) -> int:
    """Count weights, biases and delays, trained or frozen."""
    return sum(p.numel() for p in net.parameters())


def at_equal_size(build: Callable[[Shape], Net], shape: Shape, numbers: int) -> tuple[Net, Shape]:
    """Scale all hidden widths by one factor until the network has as nearly ``numbers`` parameters as can be."""

    def scaled(percent: int) -> Shape:
        return dataclasses.replace(shape, widths=tuple(max(2, round(w * percent / 100)) for w in shape.widths))

    low, high = 5, 5000  # bisection: the number of parameters grows with the width
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if count(build(scaled(middle))) <= numbers else (low, middle)
    found = min((scaled(low), scaled(high)), key=lambda trial: abs(count(build(trial)) - numbers))
    return build(found), found
