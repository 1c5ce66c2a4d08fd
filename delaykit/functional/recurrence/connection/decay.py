"""The recurrent connection of a rollout whose synapses decay each at its own rate.

    current[t] = W x[t] + sum_i beyond_ji X_ji[t-1],      X_ji[t] = decay_ji X_ji[t-1] + x_i[t]

One state ``(batch, pre, post)`` in place forward, two backward; see :mod:`delaykit.functional.filtered_linear`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from delaykit.functional.dispatch import implementation_of
from delaykit.functional.recurrence.connection.base import Inputs, Parts, RecurrentConnection
from delaykit.functional.recurrence.connection.gradients import input_weight_gradient


class Lingering(RecurrentConnection):
    """A decay for each synapse.

    Args:
        parts: what the backend makes it from.
        weight: ``(post, pre)``.
        factors: decay and beyond, ``(2, post, pre)``.
    """

    def __init__(self, parts: Parts, weight: Tensor, factors: Tensor) -> None:
        self.parts, self.weight = parts, weight
        self.decay, self.beyond = (t.t().contiguous() for t in factors)

    def _states(self, batch: int) -> Tensor:
        return self.weight.new_zeros(batch, *self.decay.shape)

    def begin(self, steps: int, batch: int) -> None:
        self.state = self._states(batch)
        self.product = self.parts.product(self.weight, batch)
        self.advance = implementation_of("decay_step", self.weight.device)

    def current(self, t: int, x: Tensor) -> Tensor:
        return self.advance(self.state, x, self.decay, self.beyond).add_(self.product(x))

    def begin_backward(self, steps: int, batch: int) -> None:
        self.later, self.slope = self._states(batch), self._states(batch)
        self.grad_decay, self.grad_beyond = torch.zeros_like(self.decay), torch.zeros_like(self.beyond)
        self.retreat = implementation_of("decay_step_back", self.weight.device)

    def pull(self, t: int, grad: Tensor) -> Tensor:
        x = grad if self.inputs is None else self.inputs.at(t)  # without inputs nobody reads what x would add up to
        into = (self.grad_decay, self.grad_beyond)
        return self.retreat(self.later, self.slope, grad, x, self.decay, self.beyond, *into).addmm_(grad, self.weight)

    def gradients(
        self, x: Inputs, delayed: Tensor | None, grad: Tensor, want: tuple[bool, bool]
    ) -> tuple[Tensor | None, Tensor | None]:
        grad_weight = input_weight_gradient(self.parts.weight_gradient, grad, x) if want[0] else None
        return grad_weight, torch.stack([(self.grad_decay * self.beyond).t(), self.grad_beyond.t()])
