r"""The neuron of a rollout, one step at a time: :class:`LIFDynamics` forward and its adjoint backward.

With L' the gradient of the loss, r_t the spike of the step before where it resets this one (else 0), a, b, c switches
of the reset (a: wipes the old membrane, b: the sum, c: at the end of the step), v~ the old membrane after a:

    S_t = L'(s_t) + [connection's gradient] + [reset of step t+1]       V_t = L'(v_t) + [carried from step t+1]
    S_t -= (sub_now + c (u_t - reset_value)) V_t                         only where the reset carries a gradient
    U_t = (1 - c (s_t - r_t)) V_t + surrogate'(u_t - threshold) S_t      gradient of u_t
    W_t = (1 - b r_t) U_t                                                gradient of beta v~ + gain i + offset
    I_t = gain W_t + alpha I_{t+1}                                       gradient of i_t and of the drive
    V_{t-1} = L'(v_{t-1}) + beta (1 - a r_t) W_t
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from delaykit.functional.dynamics import LIFDynamics
from delaykit.functional.recurrence.connection.base import RecurrentConnection

DECAY, SYNAPSE_DECAY, GAIN, OFFSET, THRESHOLD, SUBTRACT_OLD, SUBTRACT_NOW, RESET_VALUE = range(8)


@dataclasses.dataclass(frozen=True)
class Switches:
    """The reset as numbers, 0.0 or 1.0, so that one kernel without branches runs all of them."""

    zero_old: float
    wipe: float
    zero_now: float
    through_now: float
    through_old: float

    @classmethod
    def of(cls, neuron: LIFDynamics) -> Switches:
        """Read them off the description."""
        zero, spares = neuron.reset == "zero", neuron.reset_spares_input
        through = not neuron.detach_reset
        return cls(
            float(zero and neuron.delayed_reset and spares),
            float(zero and neuron.delayed_reset and not spares),
            float(zero and neuron.immediate_reset),
            float(through and neuron.immediate_reset),
            float(through and neuron.delayed_reset and neuron.reset_when == "next"),
        )


def pack(neuron: LIFDynamics, parameters: tuple[Tensor, ...]) -> Tensor:
    """Stack decay, alpha, gain, offset, threshold, what resets subtract, and the reset value: ``(8, post)``.

    Args:
        neuron: the equations.
        parameters: its numbers in the order of ``dynamics.PARAMETERS``, each ``(post,)``.
    """
    decay, alpha, gain, offset, threshold, reset_value = parameters
    none = torch.zeros_like(threshold)
    subtract = neuron.reset == "subtract"
    old = threshold if subtract and neuron.delayed_reset else none
    now = threshold if subtract and neuron.immediate_reset else none
    return torch.stack([decay, alpha, gain, offset, threshold, old, now, reset_value])


def fire(neuron: LIFDynamics, shifted: Tensor) -> Tensor:
    """Spikes of ``u - threshold`` in its own dtype, without a graph.

    Args:
        neuron: the equations.
        shifted: ``u - threshold``, any shape.
    """
    if neuron.surrogate is None:
        return torch.zeros_like(shifted)
    return neuron.surrogate(shifted).detach().to(shifted.dtype)


def slope(neuron: LIFDynamics, u: Tensor, threshold: Tensor) -> Tensor:
    """Derivative of the elementwise surrogate; zero where it has none."""
    if neuron.surrogate is None:
        return torch.zeros_like(u)
    shifted = (u - threshold).detach().requires_grad_()
    with torch.enable_grad():
        spikes = neuron.surrogate(shifted)
    if not spikes.requires_grad:
        return torch.zeros_like(u)
    return torch.autograd.grad(spikes, shifted, torch.ones_like(spikes))[0].to(u.dtype).contiguous()


SLOPE_NUMBERS = 1 << 17  # slopes at a time: few calls of the surrogate, and temporaries that stay in the cache


class ForwardNeuron(ABC):
    """Runs the neuron forward and records what the adjoint needs.

    Args:
        neuron: the equations.
        p: their numbers, see :func:`pack`.
        drive: ``(time, batch, post)``.
        synapse: alpha i before the first step, ``(batch, post)``.
        membrane: v before the first step.
        bias: ``(post,)``, part of the recurrent current.
        mask: ``(batch, post)``, factor on the recurrent current, or None.
        keep_current: whether i_t of all steps is wanted.
    """

    def __init__(self, neuron: LIFDynamics, p: Tensor, drive: Tensor, synapse: Tensor, membrane: Tensor, bias: Tensor,
                 mask: Tensor | None, keep_current: bool) -> None:  # fmt: skip
        self.neuron, self.p, self.drive, self.switches = neuron, p, drive, Switches.of(neuron)
        self.bias, self.mask, self.keep = bias, mask, keep_current
        self.synapse, self.v = synapse.clone(), membrane.clone()
        self.spikes, self.membrane = torch.empty_like(drive), torch.empty_like(drive)
        self.u = torch.empty_like(drive) if neuron.immediate_reset else self.membrane
        self.current = torch.empty_like(drive if keep_current else drive[:1])  # i_t, of all steps or the newest
        self.shifted = torch.empty_like(self.v)  # u_t - threshold
        self.r = torch.zeros_like(self.v)
        if neuron.delayed_reset:
            self.r.copy_(fire(neuron, self.v - p[THRESHOLD]))
        self.first_reset = self.r.clone()

    def step(self, t: int, recurrent: Tensor | None) -> Tensor:
        """Advance to step ``t`` with the recurrent current ``(batch, post)``; return its spikes ``(batch, post)``."""
        neuron = self.neuron
        self._integrate(t, recurrent)
        self._commit(t, fire(neuron, self.shifted))
        if neuron.delayed_reset and neuron.reset_when == "both":
            self.r.copy_(fire(neuron, self.v - self.p[THRESHOLD]))
        return self.spikes[t]

    def run(self) -> None:
        """Run all steps of a neuron without a recurrent connection."""
        for t in range(len(self.drive)):
            self.step(t, None)

    def run_through(self, connection: RecurrentConnection, newest: Tensor) -> None:
        """Run all steps, each with what a connection makes of the spikes before it, ``newest`` before the first."""
        connection.begin(len(self.drive), self.drive.shape[1])
        for t in range(len(self.drive)):
            newest = self.step(t, connection.current(t, newest))

    @property
    def spike_resets_next(self) -> bool:
        """Whether s_t is r_{t+1}."""
        return self.neuron.delayed_reset and self.neuron.reset_when == "next"

    @abstractmethod
    def _integrate(self, t: int, recurrent: Tensor | None) -> None:
        """Write i_t, u_t, ``shifted``, and alpha i_t into ``synapse``."""

    @abstractmethod
    def _commit(self, t: int, spikes: Tensor) -> None:
        """Write s_t and v_t, and r_{t+1} where :attr:`spike_resets_next`."""


class BackwardNeuron(ABC):
    """Runs the adjoint, last step first, and then reduces the gradients of the neuron's own numbers, once.

    Args:
        neuron: the equations.
        p: their numbers, see :func:`pack`.
        spikes: s of all steps, ``(time, batch, post)``, as are membrane (v) and u.
        membrane: see spikes.
        u: see spikes.
        start: v before the first step, ``(batch, post)``.
        first_reset: r of the first step.
        grad_spikes: L'(s).
        grad_membrane: L'(v), or one step of zeros.
        mask: ``(batch, post)``, factor on the recurrent current, or None.
        record: 0: nothing, 1: W_t, 2: also V_t and what flows through the spikes.
    """

    slope_known = False  # whether the surrogate's derivative is computed by `_retreat` itself

    def __init__(self, neuron: LIFDynamics, p: Tensor, spikes: Tensor, membrane: Tensor, u: Tensor, start: Tensor,
                 first_reset: Tensor, grad_spikes: Tensor, grad_membrane: Tensor, mask: Tensor | None,
                 record: int) -> None:  # fmt: skip
        self.neuron, self.p, self.switches = neuron, p, Switches.of(neuron)
        self.mask, self.spikes, self.membrane, self.u, self.start = mask, spikes, membrane, u, start
        self.grad_spikes, self.grad_membrane = grad_spikes.contiguous(), grad_membrane.contiguous()
        self.part = max(1, SLOPE_NUMBERS // max(1, start.numel()))  # steps
        self.first_reset, self.later_resets = first_reset, self._later_resets()
        self.grad_v, self.grad_i = torch.zeros_like(start), torch.zeros_like(start)  # of v_{t-1} and alpha i_{t-1}
        self.grad_r = torch.zeros_like(start)  # of s_{t-1}, through the reset of step t
        self.grad_drive = torch.empty_like(spikes)
        self.record = record
        nothing = spikes.new_empty(1, 1, 1)
        alike = neuron.synapse_decay is None and bool((p[GAIN] == 1).all())  # then W_t is the drive's gradient
        self.grad_sums = self.grad_drive if alike else torch.empty_like(spikes) if record > 0 else nothing
        self.grad_after_reset, self.grad_through_spike = (
            torch.empty_like(spikes) if record > 1 else nothing for _ in range(2)
        )

    def _later_resets(self) -> Tensor:
        """r_t of every step but the first, ``(time - 1, batch, post)``; empty where no spike reaches into the next."""
        neuron = self.neuron
        if not neuron.delayed_reset:
            return self.spikes[:0]
        if neuron.reset_when == "both":
            return fire(neuron, self.membrane[:-1] - self.p[THRESHOLD])
        return self.spikes[:-1]

    def _resets(self) -> Tensor:
        """r_t of every step, or one step that broadcasts."""
        return torch.cat([self.first_reset.unsqueeze(0), self.later_resets])

    def step(self, t: int, grad_x: Tensor | None) -> Tensor:
        """Go back through step ``t``, given the gradient of x[t+1]; return that of the recurrent current at ``t``."""
        if self.slope_known:
            self._retreat(t, t + 1, grad_x)
            return self._masked(self.grad_drive[t])
        row = t % self.part
        if t == len(self.u) - 1 or row == self.part - 1:
            self.slopes = slope(self.neuron, self.u[t - row : t + 1], self.p[THRESHOLD])
        self.slope = self.slopes[row : row + 1]
        self._retreat(t, t + 1, grad_x)
        return self._masked(self.grad_drive[t])

    def run(self, last: int) -> None:
        """Go back through all steps before ``last`` of a neuron without a recurrent connection."""
        if self.slope_known:
            self._retreat(0, last, None)
            return
        for end in range(last, 0, -self.part):
            first = max(0, end - self.part)
            self.slope = slope(self.neuron, self.u[first:end], self.p[THRESHOLD])
            self._retreat(first, end, None)

    def run_through(
        self, connection: RecurrentConnection | None, steps: int, grad_current: Tensor | None
    ) -> Tensor | None:
        """Go back through all steps and a connection; return the gradient of the spikes before the first step.

        Args:
            connection: None where nothing but ``grad_current`` asks for single steps.
            steps: how many.
            grad_current: arrives at the last i_t from outside, ``(batch, post)``; or None.
        """
        grad_x = None
        if connection is not None:
            connection.begin_backward(steps, self.spikes.shape[1])
        for t in range(steps - 1, -1, -1):
            grad = self.step(t, grad_x)
            if t == steps - 1 and grad_current is not None:
                grad = self.add_to_current(t, grad_current)
            grad_x = None if connection is None else connection.pull(t, grad)
        return grad_x

    @abstractmethod
    def _retreat(self, first: int, last: int, grad_x: Tensor | None) -> None:
        """Go back through steps ``last - 1`` to ``first``, whose slopes of the surrogate are in ``self.slope``.

        Write ``grad_drive`` and what is recorded, and bring ``grad_v``, ``grad_i`` and ``grad_r`` to ``first - 1``.
        """

    def _masked(self, gradient: Tensor) -> Tensor:
        return gradient if self.mask is None else self.mask * gradient

    def finish(self) -> None:
        """Let what reaches r_0, the spike before the first step, go on to the initial membrane."""
        self.grad_first_reset = torch.zeros_like(self.grad_r)
        if self.switches.through_old:
            self.grad_first_reset = self.grad_r * slope(self.neuron, self.start, self.p[THRESHOLD])
            self.grad_v += self.grad_first_reset

    def add_to_current(self, t: int, gradient: Tensor) -> Tensor:
        """Add a gradient ``(batch, post)`` that arrives at i_t from outside, right after ``step(t)``; return g[t]."""
        self.grad_i += gradient
        self.grad_drive[t] += gradient
        return self._masked(self.grad_drive[t])

    def parameter_gradients(self, current: Tensor | None, want: tuple[bool, ...]) -> tuple[Tensor | None, ...]:
        """Reduce over time and batch: gradients ``(post,)`` in the order of ``dynamics.PARAMETERS``."""
        p, w, grad_sum = self.p, self.switches, self.grad_sums
        out: list[Tensor | None] = [None] * 6
        if want[0]:
            decay = (grad_sum[0] * self.start).sum(0) + (grad_sum[1:] * self.membrane[:-1]).sum((0, 1))
            if w.zero_old:
                old = torch.cat([self.start.unsqueeze(0), self.membrane[:-1]])
                decay = decay - (grad_sum * self._resets() * (old - p[RESET_VALUE])).sum((0, 1))
            out[0] = decay
        if want[1] and current is not None:
            out[1] = (self.grad_drive[1:] * current[:-1]).sum((0, 1))
        if want[2] and current is not None:
            out[2] = (grad_sum * current).sum((0, 1))
        if want[3]:
            out[3] = grad_sum.sum((0, 1))
        if want[4] or want[5]:
            out[4], out[5] = self._reset_gradients()
        return tuple(out)

    def _reset_gradients(self) -> tuple[Tensor, Tensor]:
        """Gradients of threshold and reset value."""
        p, w, r, grad_v = self.p, self.switches, self._resets(), self.grad_after_reset
        gate = self.spikes - r
        grad_u = grad_v * (1 - w.zero_now * gate) + self.grad_through_spike
        threshold = self.grad_through_spike.sum((0, 1)) + self.grad_first_reset.sum(0)
        if self.neuron.reset == "subtract":
            threshold = threshold + (float(self.neuron.immediate_reset) * gate * grad_v + r * grad_u).sum((0, 1))
        value = w.zero_now * gate * grad_v + (w.wipe + w.zero_old * p[DECAY]) * r * grad_u
        return -threshold, value.sum((0, 1))
