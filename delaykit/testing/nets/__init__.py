"""Tiny networks that really fire, a file for each library, and the second implementation that judges them."""

from delaykit.testing.nets.tiny import (
    HIDDEN,
    LIBRARIES,
    MORE_NETS,
    OUT,
    PRE,
    LoopInside,
    Record,
    TinyNet,
    input_spikes,
    missing,
    shared_net,
    tiny_nets,
)

__all__ = [
    "HIDDEN",
    "LIBRARIES",
    "MORE_NETS",
    "OUT",
    "PRE",
    "LoopInside",
    "Record",
    "TinyNet",
    "input_spikes",
    "missing",
    "shared_net",
    "tiny_nets",
]
