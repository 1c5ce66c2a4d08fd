"""What unwrapping leaves behind where spikes were under way: whoever wraps again in mid-run is told so."""

from __future__ import annotations

import copy
from typing import Any

from torch import nn

from delaykit.attaching.wiring import wiring_of

LEFT = "_dk_left"
UNWRAPPED = "behind dk.unwrap_"


class Leftover:
    """Lies in the ``__dict__`` of a bare module, and in those of its copies; a pickle of the module has none.

    Args:
        lines: the slots of its connections that had something under way.
        neuron: what the watch of a neuron knew of its last step, by attribute.
    """

    def __init__(self, lines: set[str], neuron: dict[str, Any]) -> None:
        self.lines, self.neuron = lines, neuron

    def __deepcopy__(self, memo: dict[int, Any]) -> Leftover:
        return self  # nothing writes into it

    def __reduce__(self) -> tuple[Any, ...]:
        return bool, ()


def leave_lines_(net: nn.Module) -> None:
    """Note beside its modules what a model that is about to be unwrapped has under way, if anything."""
    wirings = {module: wiring for module in net.modules() if (wiring := wiring_of(module)) is not None}
    late = {m: {slot for slot, a in w.sites.items() if a.history.ends_early()} for m, w in wirings.items()}
    if not any(late.values()):
        return
    for module, wiring in wirings.items():
        neuron = {} if wiring.watch is None else wiring.watch.last_step()
        if late[module] or neuron:
            module.__dict__[LEFT] = Leftover(late[module], neuron)


def take_up_lines_(net: nn.Module) -> None:
    """Let connections that were just wrapped know that something was under way when they were unwrapped."""
    for module in net.modules():
        left, wiring = module.__dict__.pop(LEFT, None), wiring_of(module)
        if wiring is None or not isinstance(left, Leftover):
            continue
        if wiring.watch is not None and left.neuron:
            wiring.watch.go_on_from(copy.copy(left.neuron["left"]), left.neuron["began"])
        for slot in left.lines & wiring.sites.keys():
            wiring.sites[slot].go_on_without(UNWRAPPED)
