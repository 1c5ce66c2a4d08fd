"""What goes into the operator and what it keeps: plain records of tensors, no arithmetic."""

from __future__ import annotations

import dataclasses
from typing import Any

from torch import Tensor


@dataclasses.dataclass(frozen=True)
class InputSpikes:
    """Spikes on their way into a layer; each row is sorted by time.

    Args:
        times: ``(sample, slot)``, ascending, at least 0; slots from ``counts`` on are ignored.
        neurons: presynaptic neuron of each, ``(sample, slot)``, int64.
        counts: number of filled slots whose time lies before the end of the window, ``(sample,)``, int64.
        delays: ``(post, pre)`` in the unit of time, where neurons differ in the order of arrivals; None: no delay.
    """

    times: Tensor
    neurons: Tensor
    counts: Tensor
    delays: Tensor | None = None

    @property
    def batch(self) -> int:
        """Number of samples."""
        return len(self.counts)


@dataclasses.dataclass(frozen=True)
class Record:
    """All spikes of a layer, in the order in which its backend found them: the memory of the way back.

    Args:
        sample: ``(spike,)``.
        interval: number of the arrival after which the spike came, ``(spike,)``.
        neuron: ``(spike,)``.
        when: time, ``(spike,)``, float64.
        strength: synaptic current I at the spike, ``(spike,)``, float64.
        begin: where the backend finds the spikes of its parts.
    """

    sample: Tensor
    interval: Tensor
    neuron: Tensor
    when: Tensor
    strength: Tensor
    begin: Any
