"""The operators in plain torch, for every device: backend ``torch``."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def sparse_filter(x: Tensor, first: Tensor, place: Tensor, value: Tensor, outputs: int) -> Tensor:
    """Deliver all spikes of ``x (time, batch, pre)`` to ``(time, batch, outputs)``."""
    time, batch, _ = x.shape
    out = x.new_zeros(batch, time * outputs)
    for step in range(time):
        row, arrival, size = _visited(x[step], first)
        arrives = step * outputs + place[arrival].long()
        inside = arrives < time * outputs
        out.index_put_((row[inside], arrives[inside]), (size * value[arrival])[inside], accumulate=True)
    return out.view(batch, time, outputs).transpose(0, 1)


def deliver(
    first: Tensor, place: Tensor, value: Tensor, currents: Tensor, bias: Tensor | None
) -> Callable[[Tensor, int], Tensor]:
    """Make what delivers the spikes of one step to the ring ``currents (batch, depth, post)``.

    Returns:
        A function of the spikes ``(batch, pre)`` and of the slot of this step, which returns what has arrived for it,
        ``(batch, post)``, the bias included; the slot is empty then.
    """
    flat = currents.flatten(1)

    def run(x: Tensor, slot: int) -> Tensor:
        row, arrival, size = _visited(x, first)
        where = (slot * currents.shape[2] + place[arrival].long()) % flat.shape[1]
        flat.index_put_((row, where), size * value[arrival], accumulate=True)
        out = currents[:, slot].clone() if bias is None else currents[:, slot] + bias
        currents[:, slot].zero_()
        return out

    return run


def _visited(x: Tensor, first: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """List batch row, arrival and size for each spike and each of its arrivals."""
    row, neuron = x.nonzero(as_tuple=True)
    begin, count = first[neuron].long(), (first[neuron + 1] - first[neuron]).long()
    spike = torch.repeat_interleave(torch.arange(len(row), device=x.device), count)
    past = torch.arange(len(spike), device=x.device) - (count.cumsum(0) - count)[spike]
    return row[spike], begin[spike] + past, x[row, neuron][spike]
