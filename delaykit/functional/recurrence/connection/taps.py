"""Recurrent connections with one delay for each neuron or synapse, or none, put together from what a backend has.

With x[t] = s[t-1] the input of the connection and g[t] the gradient of its current:

| delay | current | gradient of x | gradient of the weight | gradient of a tap |
|---|---|---|---|---|
| none | W x | W^T g | g x^T | - |
| layer, axonal | W R(x) | R'(W^T g) | g R(x)^T | corr(x, W^T g) |
| dendritic | R(W x) | W^T R'(g) | R'(g) x^T | corr(W x, g) |
| synaptic | (W R)(x) | (W R)'(g) | sum_m value corr(x, g) | W corr(x, g) |

R reads taps in the past, R' the same taps in the future, see :mod:`delaykit.functional.recurrence.connection.torch`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from delaykit.functional.recurrence.connection.base import Inputs, Parts, RecurrentConnection, SparseTaps
from delaykit.functional.recurrence.connection.gradients import input_correlation, input_weight_gradient


class Tapped(RecurrentConnection):
    """What these connections share."""

    def __init__(self, parts: Parts, weight: Tensor, taps: SparseTaps | None, steps: int) -> None:
        self.parts, self.weight, self.taps = parts, weight, taps
        self.pad = 0 if taps is None else min(int(taps.index.max()), steps)

    def _history(self, steps: int, neurons: int, batch: int, past: bool) -> Tensor:
        """Make a history ``(time, neuron, batch)`` with the pad of zeros before its past or after its future."""
        history = self.weight.new_empty(steps + self.pad, neurons, batch)
        history[: self.pad if past else 0] = 0
        history[len(history) if past else steps :] = 0
        return history


class Bare(Tapped):
    """No delay."""

    def begin(self, steps: int, batch: int) -> None:
        self.product = self.parts.product(self.weight, batch)

    def current(self, t: int, x: Tensor) -> Tensor:
        return self.product(x)

    def begin_backward(self, steps: int, batch: int) -> None:
        self.out = self.weight.new_empty(batch, self.weight.shape[1])

    def pull(self, t: int, grad: Tensor) -> Tensor:
        return torch.mm(grad, self.weight, out=self.out)

    def gradients(
        self, x: Inputs, delayed: Tensor | None, grad: Tensor, want: tuple[bool, bool]
    ) -> tuple[Tensor | None, Tensor | None]:
        return (input_weight_gradient(self.parts.weight_gradient, grad, x) if want[0] else None), None


class Axonal(Tapped):
    """One delay for each presynaptic neuron (or for the layer): delay, then one product."""

    taps: SparseTaps
    correlation: Any = None  # of steps pulled one by one; a chip's own program pulls none

    def begin(self, steps: int, batch: int) -> None:
        self.delayed = self.weight.new_empty(steps, batch, self.weight.shape[1])
        self.delivery = self.parts.delivery(self.taps, self.delayed)
        self.product = self.parts.product(self.weight, batch)

    def current(self, t: int, x: Tensor) -> Tensor:
        return self.product(self.delivery(t, x))

    def begin_backward(self, steps: int, batch: int) -> None:
        self.arrived = self._history(steps, self.weight.shape[1], batch, past=False)  # gradient of R(x)
        self.reader = self.parts.line_reader(self.arrived, self.pad, self.taps, -1)
        self.transposed = self.weight.t().contiguous()
        self.correlation = None if self.inputs is None else self.reader.correlation()

    def pull(self, t: int, grad: Tensor) -> Tensor:
        torch.mm(self.transposed, grad.t(), out=self.arrived[t])
        if self.correlation is not None and self.inputs is not None:
            self.correlation.add(t, self.inputs.at(t))
        return self.reader.read(t)

    def gradients(
        self, x: Inputs, delayed: Tensor | None, grad: Tensor, want: tuple[bool, bool]
    ) -> tuple[Tensor | None, Tensor | None]:
        grad_weight = self.parts.weight_gradient(grad, delayed) if want[0] and delayed is not None else None
        grad_value = None
        if want[1] and self.correlation is not None:
            grad_value = self.correlation.total()
        elif want[1]:
            grad_value = input_correlation(self.parts.line_correlation, x, self.arrived[: len(grad)], self.taps)
        return grad_weight, grad_value


class Dendritic(Tapped):
    """One delay for each postsynaptic neuron: one product, then delay."""

    taps: SparseTaps

    def begin(self, steps: int, batch: int) -> None:
        self.arriving = self._history(steps, len(self.weight), batch, past=True)
        self.reader = self.parts.line_reader(self.arriving, self.pad, self.taps, 1)
        self.product = self.parts.product(self.weight, batch)

    def current(self, t: int, x: Tensor) -> Tensor:
        self.arriving[self.pad + t] = self.product(x).t()
        return self.reader.read(t)

    def begin_backward(self, steps: int, batch: int) -> None:
        self.grad_current = self._history(steps, len(self.weight), batch, past=False)
        self.grad_product = self.weight.new_empty(steps, batch, len(self.weight))
        self.reader = self.parts.line_reader(self.grad_current, self.pad, self.taps, -1)
        self.out = self.weight.new_empty(batch, self.weight.shape[1])

    def pull(self, t: int, grad: Tensor) -> Tensor:
        self.grad_current[t] = grad.t()
        self.grad_product[t] = self.reader.read(t)
        return torch.mm(self.grad_product[t], self.weight, out=self.out)

    def gradients(
        self, x: Inputs, delayed: Tensor | None, grad: Tensor, want: tuple[bool, bool]
    ) -> tuple[Tensor | None, Tensor | None]:
        grad_weight = input_weight_gradient(self.parts.weight_gradient, self.grad_product, x) if want[0] else None
        grad_value = None
        if want[1]:
            joined = torch.cat([x.start.unsqueeze(0), x.spikes[:-1]])
            product = torch.nn.functional.linear(joined, self.weight)
            grad_value = self.parts.line_correlation(product, self.grad_current[: len(grad)], self.taps, 0)
        return grad_weight, grad_value


class Synaptic(Tapped):
    """One delay for each synapse: every synapse reads its own taps."""

    taps: SparseTaps

    def _coefficients(self) -> SparseTaps:
        return self.taps._replace(value=self.weight * self.taps.value)

    def begin(self, steps: int, batch: int) -> None:
        self.history = self._history(steps, self.weight.shape[1], batch, past=True)
        self.reader = self.parts.synapse_reader(self.history, self.pad, self._coefficients(), 1)

    def current(self, t: int, x: Tensor) -> Tensor:
        self.history[self.pad + t] = x.t()
        return self.reader.read(t)

    def begin_backward(self, steps: int, batch: int) -> None:
        self.grad_current = self._history(steps, len(self.weight), batch, past=False)
        index, value, order = self._coefficients()
        transposed = SparseTaps(index.transpose(1, 2), value.transpose(1, 2), order)
        self.reader = self.parts.synapse_reader(self.grad_current, self.pad, transposed, -1)

    def pull(self, t: int, grad: Tensor) -> Tensor:
        self.grad_current[t] = grad.t()
        return self.reader.read(t)

    def gradients(
        self, x: Inputs, delayed: Tensor | None, grad: Tensor, want: tuple[bool, bool]
    ) -> tuple[Tensor | None, Tensor | None]:
        if not any(want):
            return None, None
        correlation = input_correlation(self.parts.synapse_correlation, x, self.grad_current[: len(grad)], self.taps)
        grad_weight = (correlation * self.taps.value).sum(0).to(self.weight.dtype) if want[0] else None
        return grad_weight, (correlation * self.weight if want[1] else None)


def connect(parts: Parts, weight: Tensor, taps: SparseTaps | None, steps: int) -> RecurrentConnection:
    """Choose the connection by the taps' own shape: (m, 1, pre), (m, post, 1) or (m, post, pre)."""
    if taps is None:
        return Bare(parts, weight, None, steps)
    post, pre = taps.index.shape[1:]
    kind = Axonal if post == 1 else Dendritic if pre == 1 else Synaptic
    return kind(parts, weight, taps, steps)
