"""snnTorch's list of living neurons, which holds what it lists: a copy is there only as long as somebody has it."""

from __future__ import annotations

import sys
import weakref
from typing import Any

from torch import nn


def list_(module: nn.Module) -> None:
    """Let ``utils.reset`` find a neuron that was copied: ``deepcopy`` does not run the ``__init__`` that lists it."""
    snn = sys.modules.get("snntorch")
    if snn is None or not isinstance(module, snn.SpikingNeuron):
        return
    listed: list[Any] = snn.SpikingNeuron.instances
    listed[:] = [entry for entry in listed if entry is not None]
    listed.append(weakref.proxy(module, _leave))


def _leave(proxy: Any) -> None:
    """Put None where a neuron was: a reset that counts through the list now passes it by, and finds as many entries."""
    snn = sys.modules.get("snntorch")
    listed: list[Any] = [] if snn is None else snn.SpikingNeuron.instances
    for place, entry in enumerate(listed):
        if entry is proxy:
            listed[place] = None
