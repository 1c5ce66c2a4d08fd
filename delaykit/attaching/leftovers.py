"""What unwrapping leaves behind where spikes were under way: whoever wraps again in mid-run is told so."""

from __future__ import annotations

import copy
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from torch import nn

from delaykit.attaching.wiring import wiring_of

UNWRAPPED = "behind dk.unwrap_"


class Leftover(NamedTuple):
    """What a bare module left behind.

    Args:
        lines: the slots of its connections that had something under way.
        neuron: what the watch of a neuron knew of its last step, by attribute.
    """

    lines: set[str]
    neuron: dict[str, Any]


# Beside the modules and not in them: a bare model is what it was before, to the last attribute.
_LEFT: WeakKeyDictionary[nn.Module, Leftover] = WeakKeyDictionary()


def leave_lines_(net: nn.Module) -> None:
    """Note beside its modules what a model that is about to be unwrapped has under way, if anything."""
    wirings = {module: wiring for module in net.modules() if (wiring := wiring_of(module)) is not None}
    late = {m: {slot for slot, a in w.sites.items() if a.history.ends_early()} for m, w in wirings.items()}
    if not any(late.values()):
        return
    for module, wiring in wirings.items():
        neuron = {} if wiring.watch is None else wiring.watch.last_step()
        if late[module] or neuron:
            _LEFT[module] = Leftover(late[module], neuron)


def take_up_lines_(net: nn.Module) -> None:
    """Let connections that were just wrapped know that something was under way when they were unwrapped."""
    for module in net.modules():
        left, wiring = _LEFT.pop(module, None), wiring_of(module)
        if wiring is None or left is None:
            continue
        if wiring.watch is not None and left.neuron:
            wiring.watch.go_on_from(copy.copy(left.neuron["left"]), left.neuron["began"])
        for slot in left.lines & wiring.sites.keys():
            wiring.sites[slot].go_on_without(UNWRAPPED)


def copy_lines_(net: nn.Module, twin: nn.Module) -> None:
    """Let a copy of a bare model know what the model left behind."""
    for old, new in zip(net.modules(), twin.modules(), strict=True):
        if old in _LEFT:
            _LEFT[new] = _LEFT[old]
