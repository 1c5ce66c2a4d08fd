"""The recurrent connection of a rollout whose triangles have widths of their presynaptic neurons: two cells a synapse.

The lines are those of a step loop, :mod:`~delaykit.functional.step_tape.cells.spreads`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from delaykit.functional.recurrence.connection.base import Connect, Inputs, RecurrentConnection
from delaykit.functional.step_tape.cells.spreads import SpreadFilter, fits
from delaykit.functional.tents import OwnTents


def packed(tents: OwnTents) -> Tensor:
    """Join delays and widths, ``(post + 1, pre)``, float64: what of them learns, as one tensor."""
    return torch.cat([tents.delays.double(), tents.widths.double()])


def spread_connection(tents: OwnTents, currents: Tensor) -> Connect | None:
    """Return what connects through two cells a synapse, None where listing taps serves better."""
    neurons = currents.shape[2]
    if tents.shape != (neurons, neurons) or not fits(tents, currents.new_empty(1, 1).expand(neurons, neurons)):
        return None
    return lambda weight, index, value, steps: SpreadSynaptic(weight, value)


class SpreadSynaptic(RecurrentConnection):
    """One delay for each synapse, one width for each presynaptic neuron.

    Args:
        weight: ``(post, pre)``.
        value: delays and widths, see :func:`packed`.
    """

    def __init__(self, weight: Tensor, value: Tensor) -> None:
        self.filter = SpreadFilter(OwnTents(value[:-1], value[-1:]), weight)

    def _rows(self, batch: int) -> tuple[Tensor, Tensor]:
        """Make what a line is written from, ``(neuron, 1, batch)``, and what is read, ``(batch, neuron)``."""
        weight, neurons = self.filter.parameters[2], self.filter.inputs
        return weight.new_empty(neurons, 1, batch), weight.new_empty(batch, neurons)

    def begin(self, steps: int, batch: int) -> None:
        self.line = self.filter.line(self.filter.inputs, batch)
        self.x, self.out = self._rows(batch)

    def current(self, t: int, x: Tensor) -> Tensor:
        self.x[:, 0] = x.t()
        self.line.write(self.x, 0)
        self.filter.read(self.line.rows, self.line.now, self.out.t().unsqueeze(2))
        return self.out

    def begin_backward(self, steps: int, batch: int) -> None:
        self.adjoint = self.filter.adjoint(batch)
        self.grad, self.back = self._rows(batch)

    def pull(self, t: int, grad: Tensor) -> Tensor:
        self.grad[:, 0] = grad.t()
        self.adjoint.write(self.grad, 0)
        self.adjoint.read(self.back.t().unsqueeze(2))
        return self.back

    def gradients(
        self, x: Inputs, delayed: Tensor | None, grad: Tensor, want: tuple[bool, bool]
    ) -> tuple[Tensor | None, Tensor | None]:
        if not any(want):
            return None, None
        inputs = torch.cat([x.start.unsqueeze(0), x.spikes[:-1]]).permute(2, 0, 1)
        delays, widths, weight = self.filter.slopes(grad.permute(2, 0, 1), inputs)
        return weight if want[0] else None, torch.cat([delays, widths.to(delays)]) if want[1] else None
