"""Gaussians of one width around the delay of every synapse, step by step: a few numbers a synapse for any spread.

:mod:`delaykit.functional.step_tape.cells.basis` says why polynomials in cells are exact. An input that the window
leaves behind is taken back from the cells that it was written to.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from delaykit.functional.step_tape.cells.basis import REACH, Bells
from delaykit.functional.step_tape.cells.lagged_products import lagged_products
from delaykit.functional.step_tape.cells.lines import Heights, Written
from delaykit.functional.step_tape.cells.reading import CellFilter, PolynomialReader
from delaykit.functional.step_tape.filters import aligned


class BellFilter(CellFilter):
    """Delay and weigh every synapse, its spikes spread over a gaussian of a common width.

    Args:
        bells: a delay for each synapse, the width and the window.
        weight: ``(post, pre)``.
    """

    operators = ("tape_tents", "tape_pending", "tape_polynomials")

    def __init__(self, bells: Bells, weight: Tensor) -> None:
        self.outputs, self.inputs = weight.shape
        self.parameters = (bells.delays, weight)
        self.bells, self.reach = bells, bells.window
        self.basis = basis = bells.basis
        cell, part = basis.place(bells.delays.detach())
        self.farthest = int(cell.max())
        scale, strength = bells.scale(), weight.detach()
        strength = strength if scale is None else strength * scale.to(strength)
        table = -cell * basis.terms, part.to(strength.dtype), strength
        self.behind = PolynomialReader(basis.terms, *(x.t() for x in table))
        self.ahead = PolynomialReader(basis.terms, *table)
        self._written()

    def _written(self) -> None:
        """List what an input writes when it comes, and when it leaves the window."""
        basis, window, dtype = self.basis, self.bells.window, self.parameters[1].dtype
        last = min(math.ceil(REACH[dtype] * basis.std), window - 1) * basis.cells
        self.heights = self._heights(-self.farthest, last, 0)
        first = max(basis.cells, window * basis.cells - last)  # so late are the nearest cells that it was written to
        gone = self._heights(-self.farthest, -first, window * basis.cells) if first <= self.farthest else None
        self.gone = None if gone is None else (window, Heights(gone.first, -gone.values))

    def _heights(self, first: int, last: int, age: int) -> Heights:
        """Coefficients in the cells first .. last from now of an input that came ``age`` cells before."""
        values = self.basis.coefficients(torch.arange(first, last + 1) + age)
        return Heights(first * self.basis.terms, values.to(self.parameters[1].detach()).reshape(1, -1))

    def line(self, channels: int, chunk: int) -> Written:
        """Make an empty line of cells."""
        basis = self.basis
        return Written(
            basis.cells * basis.terms, self.farthest * basis.terms, self.heights, (channels, chunk), self.gone
        )

    def correlate(self, gradients: Tensor, rows: Tensor, start: int, stop: int) -> tuple[Tensor | None, ...]:
        delays, weight = self.parameters
        seen, series = aligned(gradients, rows, start, stop, self.reach)
        grad_delays, grad_weight = torch.zeros_like(delays), torch.zeros_like(weight)
        epsilon, std = self.bells.epsilon, self.basis.std
        for block, products in lagged_products(series, seen[:, start - stop :], self.reach):
            some = delays.detach()[block]
            height = self.bells.heights(some)
            slope = (torch.arange(self.reach).to(some).view(-1, 1, 1) - some).mul_(height).div_(std**2)
            value, by_delay = (height * products).sum(0), (slope * products).sum(0)
            if epsilon is not None:  # divided by a sum that moves with the delay, too
                total = height.sum(0).add_(epsilon)
                value = value / total
                by_delay = (by_delay - value * slope.sum(0)) / total
            grad_weight[block], grad_delays[block] = value, by_delay * weight.detach()[block]
        return (grad_delays if delays.requires_grad else None, grad_weight if weight.requires_grad else None)
