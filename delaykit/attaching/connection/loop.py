"""A recurrent connection that a neuron did not have: its own output, delayed, added to its input."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from delaykit.attaching.attachment import Attachment
from delaykit.attaching.connection.calls import step_connection
from delaykit.attaching.connection.products import product_of
from delaykit.attaching.history.connection_history import History
from delaykit.synapse import Synapse

LOOP = "loop"  # its slot among a neuron's connections


class RecurrentLoop(nn.Module):
    """What :class:`delaykit.Recurrent` hangs into a neuron as its child ``dk``.

    Args:
        weight: initial (neuron, neuron) matrix.
        bias: whether the connection has a bias, zero at first.
        synapse: the parts of the connection.
    """

    def __init__(self, weight: Tensor, bias: bool, synapse: Synapse) -> None:
        super().__init__()
        self.connection = nn.Linear(weight.shape[1], weight.shape[0], bias=bias, device="meta")
        self.connection.weight = nn.Parameter(weight)
        if bias:
            self.connection.bias = nn.Parameter(weight.new_zeros(weight.shape[0]))
        self.synapse = synapse

    def add_to(self, drive: Tensor, history: History, attachment: Attachment) -> Tensor:
        """Return the neuron's input with the recurrent current added; s[-1] is zero."""
        last = history.take_back()
        spikes = torch.zeros_like(drive) if last is None else last
        if attachment.off:
            return drive + self.connection(spikes)
        product = product_of(self.connection, self.connection.forward)
        return drive + step_connection(self.synapse, attachment, product, spikes, history)

    def extra_repr(self) -> str:
        parts = [p.extra_repr() for p in (self.synapse.delay, self.synapse.heterogeneity) if p is not None]
        return ", ".join(["recurrent", *parts])
