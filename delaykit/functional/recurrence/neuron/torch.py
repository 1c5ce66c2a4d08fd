"""The steps of a rollout's neuron in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor

from delaykit.functional.recurrence.neuron import base
from delaykit.functional.recurrence.neuron.base import (
    DECAY,
    GAIN,
    OFFSET,
    RESET_VALUE,
    SUBTRACT_NOW,
    SUBTRACT_OLD,
    SYNAPSE_DECAY,
    THRESHOLD,
)


class ForwardNeuron(base.ForwardNeuron):
    """Runs the neuron forward."""

    def _integrate(self, t: int, recurrent: Tensor | None) -> None:
        p, r, current, old, w = self.p, self.r, self.drive[t], self.v, self.switches
        if recurrent is not None:
            extra = recurrent + self.bias
            current = current + (extra if self.mask is None else self.mask * extra)
        current = current + self.synapse
        self.synapse = p[SYNAPSE_DECAY] * current
        self.current[t if self.keep else 0] = current
        if w.zero_old:
            old = old - r * (old - p[RESET_VALUE])
        new = p[DECAY] * old + p[GAIN] * current + p[OFFSET] - r * p[SUBTRACT_OLD]
        if w.wipe:
            new = new - r * (new - p[RESET_VALUE])
        self.u[t] = new
        torch.sub(new, p[THRESHOLD], out=self.shifted)

    def _commit(self, t: int, spikes: Tensor) -> None:
        p, new = self.p, self.u[t]
        if self.neuron.immediate_reset:
            reset = p[SUBTRACT_NOW] + self.switches.zero_now * (new - p[RESET_VALUE])
            new = new - (spikes - self.r) * reset
            self.membrane[t] = new
        self.v.copy_(new)
        self.spikes[t] = spikes
        if self.spike_resets_next:
            self.r.copy_(spikes)


class BackwardNeuron(base.BackwardNeuron):
    """Runs the adjoint."""

    def _retreat(self, first: int, last: int, grad_x: Tensor | None) -> None:
        for t in range(last - 1, first - 1, -1):
            self._back(t, grad_x, self.slope[t - first])

    def _back(self, t: int, grad_x: Tensor | None, slope: Tensor) -> None:
        p, w = self.p, self.switches
        early = self.later_resets[t - 1] if t and len(self.later_resets) else self.first_reset
        grad_s = self.grad_spikes[t] + self.grad_r
        grad_v = self.grad_membrane[min(t, len(self.grad_membrane) - 1)] + self.grad_v
        if grad_x is not None:
            grad_s = grad_s + grad_x
        if w.through_now:
            grad_s = grad_s - (p[SUBTRACT_NOW] + w.zero_now * (self.u[t] - p[RESET_VALUE])) * grad_v
        grad_through_spike = grad_s * slope
        grad_u = grad_v * (1 - w.zero_now * (self.spikes[t] - early)) + grad_through_spike
        grad_sum = grad_u * (1 - w.wipe * early)
        if w.through_old:
            old = self.membrane[t - 1] if t else self.start
            self.grad_r = -(p[SUBTRACT_OLD] + w.zero_old * p[DECAY] * (old - p[RESET_VALUE])) * grad_u
        self.grad_v = p[DECAY] * grad_sum * (1 - w.zero_old * early)
        self.grad_i = p[GAIN] * grad_sum + p[SYNAPSE_DECAY] * self.grad_i
        self.grad_drive[t] = self.grad_i
        if self.record > 0:
            self.grad_sums[t] = grad_sum
        if self.record > 1:
            self.grad_after_reset[t], self.grad_through_spike[t] = grad_v, grad_through_spike
