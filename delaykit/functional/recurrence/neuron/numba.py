"""The compiled steps of a rollout's neuron; :mod:`delaykit.functional.recurrence.neuron.base` has the equations.

The adjoint, too, is many short loops over one row of neurons, each of few arrays, so that it is vectorised.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch
from torch import Tensor

from delaykit.functional.compiled import compiled_for
from delaykit.functional.recurrence.connection.base import RecurrentConnection
from delaykit.functional.recurrence.neuron import base
from delaykit.functional.recurrence.neuron.rows import commit_row, integrate_row
from delaykit.functional.surrogates import Slope


class ForwardNeuron(base.ForwardNeuron):
    """Runs the neuron forward."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.fires_itself = self.neuron.heaviside and self.neuron.spiking
        self.both = self.fires_itself and self.neuron.delayed_reset and self.neuron.reset_when == "both"
        self.arrays = _arrays(vars(self), mask=self.shifted)

    def step(self, t: int, recurrent: Tensor | None) -> Tensor:
        if not self.fires_itself:
            return super().step(t, recurrent)
        self._advance(t, t + 1, recurrent, None)
        return self.spikes[t]

    def run(self) -> None:
        if self.fires_itself:
            self._advance(0, len(self.drive), None, None)
        else:
            super().run()

    def _integrate(self, t: int, recurrent: Tensor | None) -> None:
        self._advance(t, t + 1, recurrent, None, commits=False)

    def _commit(self, t: int, spikes: Tensor) -> None:
        self._advance(t, t + 1, None, spikes.contiguous(), integrates=False)

    def _advance(self, first: int, last: int, recurrent: Tensor | None, spikes: Tensor | None, integrates: bool = True,
                 commits: bool = True) -> None:  # fmt: skip
        a, w, neuron = self.arrays, self.switches, self.neuron
        advance = forward_steps(
            integrates, commits, neuron.delayed_reset, neuron.immediate_reset, w.zero_old, w.wipe, w.zero_now,
            self.spike_resets_next, self.both, recurrent is not None, self.mask is not None,
            neuron.synapse_decay is not None, self.keep,
        )  # fmt: skip
        advance(
            first, last, a["drive"], a["shifted"] if recurrent is None else recurrent.numpy(), a["mask"], a["p"],
            a["bias"], a["r"], a["synapse"], a["v"], a["u"], a["shifted"], a["current"],
            a["shifted"] if spikes is None else spikes.numpy(), a["membrane"], a["spikes"],
        )  # fmt: skip


class BackwardNeuron(base.BackwardNeuron):
    """Runs the adjoint."""

    recurs = False  # whether there is a connection, whose gradients come back step by step

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        known = self.neuron.slope
        form, synaptic = 0 if known is None else known.form, self.neuron.synapse_decay is not None
        self.kinds = *dataclasses.astuple(self.switches), form, synaptic, min(self.record, 2)
        self.arrays = _arrays(vars(self))
        self.slope_known = known is not None
        self.slope = self.u[:1]
        self.shape = self.u.new_zeros(3).numpy() if known is None else self._numbers(known)

    def _numbers(self, known: Slope) -> Any:
        return self.u.new_tensor([known.height, known.width, 1.0]).numpy()

    def run_through(
        self, connection: RecurrentConnection | None, steps: int, grad_current: Tensor | None
    ) -> Tensor | None:
        self.recurs = connection is not None
        return super().run_through(connection, steps, grad_current)

    def _retreat(self, first: int, last: int, grad_x: Tensor | None) -> None:
        a = self.arrays
        if self.recurs and grad_x is None:  # the last step: the same kernel as all others
            grad_x = torch.zeros_like(self.start)
        backward_steps(*self.kinds, self.recurs)(
            first, last, a["grad_spikes"], a["grad_membrane"], self.slope.numpy(), self.shape, a["spikes"],
            a["later_resets"], a["first_reset"], a["u"], a["membrane"], a["start"], a["p"],
            a["grad_v"] if grad_x is None else grad_x.numpy(), a["grad_v"], a["grad_i"], a["grad_r"], a["grad_drive"],
            a["grad_sums"], a["grad_after_reset"], a["grad_through_spike"],
        )  # fmt: skip


def _arrays(fields: dict[str, Any], **absent: Tensor) -> dict[str, Any]:
    """View every tensor as a NumPy array, once a sequence; ``absent`` stands in for tensors that are None."""
    tensors = absent | {name: value for name, value in fields.items() if isinstance(value, Tensor)}
    return {name: tensor.numpy() for name, tensor in tensors.items()}


@compiled_for(fastmath=(), parts=(integrate_row, commit_row))
def forward_steps(integrates, commits, delayed, immediate, zero_old, wipe, zero_now, resets_next, both, recurs, masked,
                  synaptic, keep):  # fmt: skip
    """Write the steps of one kind of neuron, or one half of a step where somebody else fires."""
    fires = integrates and commits

    def advance(first, last, drive, recurrent, mask, p, bias, r, synapse, v, u, shifted, currents, spike, membrane,
                spikes):  # fmt: skip
        """Run steps ``first`` to ``last`` of all rows of the batch."""
        threshold = p[4]
        for t in range(first, last):
            for b in range(len(v)):
                if integrates:
                    integrate_row(
                        drive[t, b], recurs, recurrent[b], mask[b], masked, p, bias, synaptic, zero_old, delayed, wipe,
                        r[b], synapse[b], v[b], currents[t if keep else 0, b], u[t, b], shifted[b],
                    )  # fmt: skip
                if commits:
                    commit_row(
                        spike[b], fires, p, immediate, zero_now, resets_next, r[b], u[t, b], v[b], membrane[t, b],
                        spikes[t, b],
                    )  # fmt: skip
                    if both:  # the membrane behind the reset resets the next step
                        for n in range(len(threshold)):
                            r[b, n] = v[b, n] - threshold[n] > 0

    return advance


@compiled_for(fastmath=())
def backward_steps(zero_old, wipe, zero_now, through_now, through_old, form, synaptic, record, recurs):
    """Write the adjoint of a neuron with these :class:`~delaykit.functional.recurrence.neuron.base.Switches`."""

    def retreat(first, last, grad_spikes, grad_membrane, slope, shape, spikes, later_resets, first_reset, u, membrane,
                start, p, grad_x, grad_v, grad_i, grad_r, grad_drive, grad_sums, grad_after_reset,
                grad_through_spike):  # fmt: skip
        """Run steps ``last - 1`` down to ``first`` of the adjoint.

        The surrogate's derivative at step t is ``slope[t - first]``, or in closed form: see
        :class:`delaykit.functional.surrogates.Slope`.
        """
        batch, neurons = grad_v.shape
        decay, alpha, gain, _, threshold, old_subtract, now_subtract, value = p
        height, width, one = shape
        grad_s, grad_after = np.empty_like(grad_v[0]), np.empty_like(grad_v[0])  # of s_t, of v_t
        grad_u, grad_sum = np.empty_like(grad_v[0]), np.empty_like(grad_v[0])  # of u_t before and behind a wipe
        for t in range(last - 1, first - 1, -1):
            for b in range(batch):
                reset = later_resets[t - 1, b] if t > 0 and later_resets.shape[0] > 0 else first_reset[b]
                fired, now, steep = spikes[t, b], u[t, b], slope[0 if form else t - first, b]
                old = membrane[t - 1, b] if t > 0 else start[b]
                from_spikes, old_grad = grad_spikes[t, b], grad_v[b]
                from_membrane = grad_membrane[min(t, grad_membrane.shape[0] - 1), b]  # one step of zeros if absent
                reset_grad, current_grad, from_x, drive_grad = grad_r[b], grad_i[b], grad_x[b], grad_drive[t, b]
                for n in range(neurons):
                    grad_s[n] = from_spikes[n]
                    grad_after[n] = from_membrane[n] + old_grad[n]
                if recurs:
                    for n in range(neurons):
                        grad_s[n] += from_x[n]
                if through_old:
                    for n in range(neurons):
                        grad_s[n] += reset_grad[n]
                if through_now:
                    for n in range(neurons):
                        grad_s[n] -= (now_subtract[n] + zero_now * (now[n] - value[n])) * grad_after[n]
                if form == 1:
                    for n in range(neurons):
                        x = width * (now[n] - threshold[n])
                        grad_s[n] *= height / (one + x * x)
                elif form == 2:
                    for n in range(neurons):
                        x = one + width * abs(now[n] - threshold[n])
                        grad_s[n] *= height / (x * x)
                else:
                    for n in range(neurons):
                        grad_s[n] *= steep[n]
                for n in range(neurons):
                    grad_u[n] = grad_after[n] + grad_s[n]
                if zero_now:
                    for n in range(neurons):
                        grad_u[n] -= grad_after[n] * (fired[n] - reset[n])
                for n in range(neurons):
                    grad_sum[n] = grad_u[n]
                if wipe:
                    for n in range(neurons):
                        grad_sum[n] -= grad_u[n] * reset[n]
                if through_old:
                    for n in range(neurons):
                        reset_grad[n] = -(old_subtract[n] + zero_old * decay[n] * (old[n] - value[n])) * grad_u[n]
                for n in range(neurons):
                    old_grad[n] = decay[n] * grad_sum[n]
                if zero_old:
                    for n in range(neurons):
                        old_grad[n] -= old_grad[n] * reset[n]
                if synaptic:
                    for n in range(neurons):
                        current_grad[n] = gain[n] * grad_sum[n] + alpha[n] * current_grad[n]
                else:
                    for n in range(neurons):
                        current_grad[n] = gain[n] * grad_sum[n]
                for n in range(neurons):
                    drive_grad[n] = current_grad[n]
                if record > 0:
                    for n in range(neurons):
                        grad_sums[t, b, n] = grad_sum[n]
                if record > 1:
                    for n in range(neurons):
                        grad_after_reset[t, b, n] = grad_after[n]
                    for n in range(neurons):
                        grad_through_spike[t, b, n] = grad_s[n]

    return retreat
