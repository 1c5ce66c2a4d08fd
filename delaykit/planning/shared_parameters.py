"""Delays meet before they are attached: the moment to share parameters, or to refuse."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from delaykit.interfaces import Delay
from delaykit.synapse import Synapse


def introduce_(net: nn.Module, synapses: Sequence[Synapse]) -> None:
    """Let each new delay meet the delays that ``net`` has already and the new ones before it.

    Nothing of ``net`` changes: a new delay may take parameters over from an earlier one, never the other way.

    Raises:
        DelaykitError: a delay refuses the others.
    """
    earlier: list[Delay] = [m.delay for m in net.modules() if isinstance(m, Synapse) and m.delay is not None]
    for synapse in synapses:
        if synapse.delay is not None:
            synapse.delay.meet_(tuple(earlier))
            earlier.append(synapse.delay)
