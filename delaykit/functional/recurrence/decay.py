"""The recurrent connection of a rollout whose synapses decay each at its own rate.

    current[t] = W x[t] + sum_i beyond_ji X_ji[t-1],      X_ji[t] = decay_ji X_ji[t-1] + x_i[t]

One state ``(batch, pre, post)`` in place forward, two backward; see :mod:`delaykit.functional.filtered_linear`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from delaykit.functional.dispatch import resolve
from delaykit.functional.recurrence.connection import Product, RecurrentConnection
from delaykit.functional.recurrence.correlation import Inputs, recurrent_weight_gradient
from delaykit.functional.taps import Taps
from delaykit.functional.tents import Tents


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


class Lingering(RecurrentConnection):
    """A decay for each synapse; ``inputs`` is to be set before the backward steps.

    Args:
        weight: ``(post, pre)``.
        factors: decay and beyond, ``(2, post, pre)``.
        steps: length of the sequence.
        compiled: whether products may skip silent inputs.
    """

    inputs: Inputs | None = None

    def __init__(self, weight: Tensor, factors: Tensor, steps: int, compiled: bool) -> None:
        super().__init__(weight, None, steps, compiled)
        self.decay, self.beyond = (t.t().contiguous() for t in factors)

    def _states(self, batch: int) -> Tensor:
        return self.weight.new_zeros(batch, *self.decay.shape)

    def begin(self, steps: int, batch: int) -> None:
        self.product, self.state = Product(self.weight, batch, self.compiled), self._states(batch)
        self.advance = resolve("decay_step", self.weight.device)

    def current(self, t: int, x: Tensor) -> Tensor:
        return self.advance(self.state, x, self.decay, self.beyond).add_(self.product(x))

    def begin_backward(self, steps: int, batch: int) -> None:
        self.later, self.slope = self._states(batch), self._states(batch)
        self.into_decay, self.into_beyond = torch.zeros_like(self.decay), torch.zeros_like(self.beyond)
        self.retreat = resolve("decay_step_back", self.weight.device)

    def pull(self, t: int, g: Tensor) -> Tensor:
        assert self.inputs is not None
        x = self.inputs.spikes[t - 1] if t else self.inputs.start
        into = (self.into_decay, self.into_beyond)
        return self.retreat(self.later, self.slope, g, x, self.decay, self.beyond, *into).addmm_(g, self.weight)

    def gradients(
        self, x: Inputs, delayed: Tensor | None, g: Tensor, want: tuple[bool, bool]
    ) -> tuple[Tensor | None, Tensor | None]:
        grad_weight = recurrent_weight_gradient(g, x, self.compiled) if want[0] else None
        return grad_weight, torch.stack([(self.into_decay * self.beyond).t(), self.into_beyond.t()])


class Recurrence(NamedTuple):
    """A recurrent connection as :func:`~delaykit.functional.recurrence.rollout` takes it.

    Args:
        weight: ``(post, post)``; None for no recurrence, or where ``through`` holds the weights.
        bias: ``(post,)``, part of the recurrent current, or None.
        through: delays or decays of the spikes on their way; None: they arrive a step later.
    """

    weight: Tensor | None = None
    bias: Tensor | None = None
    through: Taps | Tents | Fading | RecurrentConnection | None = None
