"""What a rollout asks of a recurrent connection, step by step, forwards and backwards."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from delaykit.functional.dynamics import LIFDynamics
from delaykit.functional.taps import Taps
from delaykit.functional.tents import OwnTents, Tents


class SparseTaps(NamedTuple):
    """Taps without their public coat: index and value ``(m, A, B)``, and order 0 or 2."""

    index: Tensor  # type: ignore[assignment]  # shadows tuple.index, as in Taps
    value: Tensor
    order: int

    @classmethod
    def of(cls, taps: Taps, currents: Tensor) -> SparseTaps:
        """Give a layer's single delay to every neuron; second differences stay float64."""
        index, value, order = taps
        if taps.shape == (1, 1):
            index, value = (x.expand(-1, 1, currents.shape[2]) for x in (index, value))
        return cls(index, value.to(torch.float64 if order else currents.dtype), order)


class Fading(NamedTuple):
    """What a rollout takes in place of taps where currents linger; both ``(post, post)``.

    Args:
        decay: factor a step, in [0, 1].
        beyond: factor on what is left of earlier spikes: ``weight (decay - leak)``.
    """

    decay: Tensor
    beyond: Tensor

    @property
    def shape(self) -> tuple[int, int]:
        """Number of neurons, twice."""
        return self.decay.shape[0], self.decay.shape[1]

    def memory(self) -> int:
        """Say that the spikes of one step are not enough to go on from."""
        return 2


class Inputs(NamedTuple):
    """All inputs of a recurrent connection: the spikes before the first step, then those of every step but the last."""

    start: Tensor
    spikes: Tensor

    def at(self, t: int) -> Tensor:
        """Return x[t], ``(batch, pre)``."""
        return self.spikes[t - 1] if t else self.start


class RecurrentConnection(ABC):
    """One recurrent connection over one sequence; inputs and gradients are handed over step by step."""

    delayed: Tensor | None = None  # R(x) of all steps, ``(time, batch, pre)``, to be kept for the gradients

    inputs: Inputs | None = None  # set before the backward steps where gradients of weight or taps are wanted

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
    def pull(self, t: int, grad: Tensor) -> Tensor:
        """Return the gradient of x[t], ``(batch, pre)``, from that of the current at ``t``, ``(batch, post)``."""

    @abstractmethod
    def gradients(
        self, x: Inputs, delayed: Tensor | None, grad: Tensor, want: tuple[bool, bool]
    ) -> tuple[Tensor | None, Tensor | None]:
        """Return the gradients of weight and tap values, once.

        Args:
            x: all inputs, ``(time, batch, pre)``.
            delayed: what the forward connection kept as :attr:`delayed`.
            grad: all gradients of the current, ``(time, batch, post)``.
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


class Parts(NamedTuple):
    """What a backend puts recurrent connections together from.

    Args and results are those of :mod:`delaykit.functional.recurrence.connection.torch`, which names them alike.
    """

    product: Callable[[Tensor, int], Callable[[Tensor], Tensor]]
    delivery: Callable[[SparseTaps, Tensor], Callable[[int, Tensor], Tensor]]
    line_reader: Callable[[Tensor, int, SparseTaps, int], Any]
    synapse_reader: Callable[[Tensor, int, SparseTaps, int], Any]
    weight_gradient: Callable[[Tensor, Tensor], Tensor]
    line_correlation: Callable[[Tensor, Tensor, SparseTaps, int], Tensor]
    synapse_correlation: Callable[[Tensor, Tensor, SparseTaps, int], Tensor]
    tents: Callable[[Tents | OwnTents, Tensor], Any]


Connect = Callable[[Any, Any, Any, int], RecurrentConnection]
"""Makes a connection from weight, index and value of what it is made of, and the number of steps."""
