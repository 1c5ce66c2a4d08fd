"""A sequence fed in several calls, seen when a neuron's last state comes back into the model as an argument."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from delaykit.attaching.adapter import Neuron
from delaykit.attaching.clocks import LeftMembrane
from delaykit.errors import HistoryError
from delaykit.interfaces import PointDelay
from delaykit.synapse import Synapse
from delaykit.wrapping.controls import wrapped_sites


class Handover:
    """Compares the arguments of a root call with the membranes that the call before left in the neurons.

    A ``root`` connection forgets between two calls. If the plan saw one call only and the caller then hands a state
    on to the next, spikes under way would be lost without a word.
    """

    def __init__(self, neurons: Mapping[str, Neuron]) -> None:
        self.neurons = [(neuron, LeftMembrane()) for neuron in neurons.values() if neuron.follows]

    def begin(self, net: nn.Module, arguments: Any) -> None:
        """Raise :class:`HistoryError` if a state goes on where delays begin anew."""
        if torch.compiler.is_compiling():
            return
        given = [leaf for leaf in tree_leaves(arguments) if isinstance(leaf, Tensor) and leaf.layout is torch.strided]
        for neuron, left in self.neurons:
            late = [] if all(left.look(leaf) == "fresh" for leaf in given) else _forgetful(net)
            if late:
                raise HistoryError(
                    ", ".join(late), f"the state that neuron {neuron.path!r} left at the end of the last call, handed "
                    "on to this one, while delays begin anew with every call", "one call a sequence, as in the example",
                    "wrap with example=: a function that runs one sequence in two calls; or use dk.At(component, "
                    "reset='manual') and call dk.reset(net) before each sequence; or dk.At(component, reset='root') if "
                    "spikes under way shall be lost",
                )  # fmt: skip

    def end(self) -> None:
        """Remember the membranes that this call leaves."""
        for neuron, left in self.neurons:
            left.keep(neuron.adapter.membrane(neuron.module))


def _forgetful(net: nn.Module) -> list[str]:
    """Name the connections that lose spikes between two calls, and were not asked to."""
    sites = [(s, s.attachment.timing) for s in wrapped_sites(net) if not s.attachment.off]
    return [s.name for s, timing in sites if timing.policy == "root" and not timing.asked and _is_late(s.synapse)]


def _is_late(synapse: Synapse) -> bool:
    delay = synapse.delay
    if synapse.heterogeneity is None and isinstance(delay, PointDelay):
        return bool(delay.impulse_response(delay.delays().new_ones(1, 1))[..., 1:].any())
    return synapse.heterogeneity is not None or delay is not None
