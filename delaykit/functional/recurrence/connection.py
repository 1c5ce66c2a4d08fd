"""The recurrent connection of a rollout, one step at a time: delayed current forward, its anti-causal twin backward.

With x[t] = s[t-1] the input of the connection and g[t] the gradient of its current:

| delay | current | gradient of x | gradient of the weight | gradient of a tap |
|---|---|---|---|---|
| none | W x | W^T g | g x^T | - |
| layer, axonal | W R(x) | R'(W^T g) | g R(x)^T | corr(x, W^T g) |
| dendritic | R(W x) | W^T R'(g) | R'(g) x^T | corr(W x, g) |
| synaptic | (W R)(x) | (W R)'(g) | sum_m value corr(x, g) | W corr(x, g) |

R reads taps in the past, R' the same taps in the future, see :mod:`delaykit.functional.recurrence.delay`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from delaykit.functional.dynamics import LIFDynamics
from delaykit.functional.recurrence.correlation import (
    Inputs,
    correlate_lines,
    recurrent_correlation,
    recurrent_weight_gradient,
    weight_gradient,
)
from delaykit.functional.recurrence.delay import Delivery, LineReader, Sparse, SynapseReader
from delaykit.functional.recurrence.kernels import sparse_product


class Product:
    """The product ``x W^T`` of a step: by the rows of ``W^T`` that spikes name, where there are few of them."""

    def __init__(self, weight: Tensor, batch: int, compiled: bool) -> None:
        self.turned, self.out = weight.t(), weight.new_empty(batch, len(weight))
        self.compiled = compiled
        if compiled:
            self.turned = self.turned.contiguous()
            self.arrays = self.turned.numpy(), self.out.numpy()

    def __call__(self, x: Tensor) -> Tensor:
        """Multiply ``x (batch, pre)`` to ``(batch, post)``, valid until the next call."""
        if self.compiled and sparse_product(x.numpy(), *self.arrays):
            return self.out
        return torch.mm(x, self.turned, out=self.out)


class RecurrentConnection(ABC):
    """One recurrent connection over one sequence; inputs and gradients are handed over step by step."""

    delayed: Tensor | None = None  # R(x) of all steps, ``(time, batch, pre)``, to be kept for the gradients

    def __init__(self, weight: Tensor, taps: Sparse | None, steps: int, compiled: bool) -> None:
        self.weight, self.taps, self.compiled = weight, taps, compiled
        self.pad = 0 if taps is None else min(int(taps.index.max()), steps)

    def _history(self, steps: int, neurons: int, batch: int, past: bool) -> Tensor:
        """Make a history ``(time, neuron, batch)`` with the pad of zeros before its past or after its future."""
        history = self.weight.new_empty(steps + self.pad, neurons, batch)
        history[: self.pad if past else 0] = 0
        history[len(history) if past else steps :] = 0
        return history

    @abstractmethod
    def begin(self, steps: int, batch: int) -> None:
        """Prepare the forward steps."""

    @abstractmethod
    def current(self, t: int, x: Tensor) -> Tensor:
        """Return the current at ``t``, ``(batch, post)``, from the newest input ``x (batch, pre)``."""

    @abstractmethod
    def begin_backward(self, steps: int, batch: int) -> None:
        """Prepare the backward steps."""

    @abstractmethod
    def pull(self, t: int, g: Tensor) -> Tensor:
        """Return the gradient of x[t], ``(batch, pre)``, from that of the current at ``t``, ``(batch, post)``."""

    @abstractmethod
    def gradients(
        self, x: Inputs, delayed: Tensor | None, g: Tensor, want: tuple[bool, bool]
    ) -> tuple[Tensor | None, Tensor | None]:
        """Return the gradients of weight and tap values, once.

        Args:
            x: all inputs, ``(time, batch, pre)``.
            delayed: what the forward connection kept as :attr:`delayed`.
            g: all gradients of the current, ``(time, batch, post)``.
            want: which of the two is needed.
        """

    def at_once(
        self, currents: Tensor, bias: Tensor | None, mask: Tensor | None, dynamics: LIFDynamics
    ) -> tuple[Tensor, Tensor] | None:
        """Run a whole sequence from rest, neuron included, without a graph; None where that is not to be had.

        Arguments and results are those of :func:`delaykit.functional.recurrence.rollout`. A plugin's connection may
        know a faster way than step by step for inference; None whenever a gradient is wanted.
        """
        return None


Connection = RecurrentConnection  # its former name


class Bare(RecurrentConnection):
    """No delay."""

    def begin(self, steps: int, batch: int) -> None:
        self.product = Product(self.weight, batch, self.compiled)

    def current(self, t: int, x: Tensor) -> Tensor:
        return self.product(x)

    def begin_backward(self, steps: int, batch: int) -> None:
        self.out = self.weight.new_empty(batch, self.weight.shape[1])

    def pull(self, t: int, g: Tensor) -> Tensor:
        return torch.mm(g, self.weight, out=self.out)

    def gradients(
        self, x: Inputs, delayed: Tensor | None, g: Tensor, want: tuple[bool, bool]
    ) -> tuple[Tensor | None, Tensor | None]:
        return (recurrent_weight_gradient(g, x, self.compiled) if want[0] else None), None


class Axonal(RecurrentConnection):
    """One delay for each presynaptic neuron (or for the layer): delay, then one product."""

    taps: Sparse

    def begin(self, steps: int, batch: int) -> None:
        self.delayed = self.weight.new_empty(steps, batch, self.weight.shape[1])
        self.delivery = Delivery(self.taps, self.delayed, self.compiled)
        self.product = Product(self.weight, batch, self.compiled)

    def current(self, t: int, x: Tensor) -> Tensor:
        return self.product(self.delivery(t, x))

    def begin_backward(self, steps: int, batch: int) -> None:
        self.arrived = self._history(steps, self.weight.shape[1], batch, past=False)  # gradient of R(x)
        self.reader = LineReader(self.arrived, self.pad, self.taps, -1, self.compiled)
        self.turned = self.weight.t().contiguous()

    def pull(self, t: int, g: Tensor) -> Tensor:
        torch.mm(self.turned, g.t(), out=self.arrived[t])
        return self.reader.read(t)

    def gradients(
        self, x: Inputs, delayed: Tensor | None, g: Tensor, want: tuple[bool, bool]
    ) -> tuple[Tensor | None, Tensor | None]:
        grad_weight = weight_gradient(g, delayed, self.compiled) if want[0] and delayed is not None else None
        grad_value = None
        if want[1]:
            grad_value = recurrent_correlation(False, x, self.arrived[: len(g)], self.taps, self.compiled)
        return grad_weight, grad_value


class Dendritic(RecurrentConnection):
    """One delay for each postsynaptic neuron: one product, then delay."""

    taps: Sparse

    def begin(self, steps: int, batch: int) -> None:
        self.arriving = self._history(steps, len(self.weight), batch, past=True)
        self.reader = LineReader(self.arriving, self.pad, self.taps, 1, self.compiled)
        self.product = Product(self.weight, batch, self.compiled)

    def current(self, t: int, x: Tensor) -> Tensor:
        self.arriving[self.pad + t] = self.product(x).t()
        return self.reader.read(t)

    def begin_backward(self, steps: int, batch: int) -> None:
        self.current_gradient = self._history(steps, len(self.weight), batch, past=False)
        self.product_gradient = self.weight.new_empty(steps, batch, len(self.weight))
        self.reader = LineReader(self.current_gradient, self.pad, self.taps, -1, self.compiled)
        self.out = self.weight.new_empty(batch, self.weight.shape[1])

    def pull(self, t: int, g: Tensor) -> Tensor:
        self.current_gradient[t] = g.t()
        self.product_gradient[t] = self.reader.read(t)
        return torch.mm(self.product_gradient[t], self.weight, out=self.out)

    def gradients(
        self, x: Inputs, delayed: Tensor | None, g: Tensor, want: tuple[bool, bool]
    ) -> tuple[Tensor | None, Tensor | None]:
        grad_weight = recurrent_weight_gradient(self.product_gradient, x, self.compiled) if want[0] else None
        grad_value = None
        if want[1]:
            joined = torch.cat([x.start.unsqueeze(0), x.spikes[:-1]])
            product = torch.nn.functional.linear(joined, self.weight)
            grad_value = correlate_lines(product, self.current_gradient[: len(g)], self.taps, self.compiled)
        return grad_weight, grad_value


class Synaptic(RecurrentConnection):
    """One delay for each synapse: every synapse reads its own taps."""

    taps: Sparse

    def _coefficients(self) -> Sparse:
        return self.taps._replace(value=self.weight * self.taps.value)

    def begin(self, steps: int, batch: int) -> None:
        self.history = self._history(steps, self.weight.shape[1], batch, past=True)
        self.reader = SynapseReader(self.history, self.pad, self._coefficients(), 1, self.compiled)

    def current(self, t: int, x: Tensor) -> Tensor:
        self.history[self.pad + t] = x.t()
        return self.reader.read(t)

    def begin_backward(self, steps: int, batch: int) -> None:
        self.current_gradient = self._history(steps, len(self.weight), batch, past=False)
        index, value, order = self._coefficients()
        turned = Sparse(index.transpose(1, 2), value.transpose(1, 2), order)
        self.reader = SynapseReader(self.current_gradient, self.pad, turned, -1, self.compiled)

    def pull(self, t: int, g: Tensor) -> Tensor:
        self.current_gradient[t] = g.t()
        return self.reader.read(t)

    def gradients(
        self, x: Inputs, delayed: Tensor | None, g: Tensor, want: tuple[bool, bool]
    ) -> tuple[Tensor | None, Tensor | None]:
        if not any(want):
            return None, None
        correlation = recurrent_correlation(True, x, self.current_gradient[: len(g)], self.taps, self.compiled)
        grad_weight = (correlation * self.taps.value).sum(0).to(self.weight.dtype) if want[0] else None
        return grad_weight, (correlation * self.weight if want[1] else None)


def connect(weight: Tensor, taps: Sparse | None, steps: int, compiled: bool) -> RecurrentConnection:
    """Choose the connection by the taps' own shape: (m, 1, pre), (m, post, 1) or (m, post, pre)."""
    if taps is None:
        return Bare(weight, None, steps, compiled)
    post, pre = taps.index.shape[1:]
    kind = Axonal if post == 1 else Dendritic if pre == 1 else Synaptic
    return kind(weight, taps, steps, compiled)
