"""The operators in plain torch, for every device: backend ``torch``."""

from __future__ import annotations

import torch
from torch import Tensor

from delaykit.functional.backend import register


@register("sparsify_filter", "torch")
def sparse_filter(x: Tensor, first: Tensor, post: Tensor, tau: Tensor, value: Tensor, outputs: int) -> Tensor:
    """Deliver all spikes of ``x (time, batch, pre)`` to ``(time, batch, outputs)``."""
    time, batch, _ = x.shape
    out = x.new_zeros(time, batch, outputs)
    for step in range(time):
        row, arrival, size = _visited(x[step], first)
        arrives = step + tau[arrival].long()
        inside = arrives < time
        where = arrives[inside], row[inside], post[arrival[inside]].long()
        out.index_put_(where, (size * value[arrival])[inside], accumulate=True)
    return out


@register("sparsify_deliver", "torch")
def deliver(x: Tensor, first: Tensor, post: Tensor, tau: Tensor, value: Tensor, currents: Tensor, slot: int) -> None:
    """Deliver the spikes of one step ``x (batch, pre)`` to the ring ``currents (depth, batch, post)``."""
    row, arrival, size = _visited(x, first)
    where = (slot + tau[arrival].long()) % currents.shape[0], row, post[arrival].long()
    currents.index_put_(where, size * value[arrival], accumulate=True)


def _visited(x: Tensor, first: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """List batch row, arrival and size for each spike and each of its arrivals."""
    row, neuron = x.nonzero(as_tuple=True)
    begin, count = first[neuron].long(), (first[neuron + 1] - first[neuron]).long()
    spike = torch.repeat_interleave(torch.arange(len(row), device=x.device), count)
    past = torch.arange(len(spike), device=x.device) - (count.cumsum(0) - count)[spike]
    return row[spike], begin[spike] + past, x[row, neuron][spike]
