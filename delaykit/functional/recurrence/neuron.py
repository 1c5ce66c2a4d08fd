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
from typing import Any

import torch
from torch import Tensor

from delaykit.functional.dynamics import LIFDynamics
from delaykit.functional.recurrence.neuron_kernels import adjoint, commit, integrate

DECAY, ALPHA, GAIN, OFFSET, THRESHOLD, SUBTRACT_OLD, SUBTRACT_NOW, RESET_VALUE = range(8)


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
    """Stack decay, alpha, gain, offset, threshold, what resets subtract, and the reset value: ``(8, post)``."""
    decay, alpha, gain, offset, threshold, reset_value = parameters
    none = torch.zeros_like(threshold)
    subtract = neuron.reset == "subtract"
    old = threshold if subtract and neuron.delayed_reset else none
    now = threshold if subtract and neuron.immediate_reset else none
    return torch.stack([decay, alpha, gain, offset, threshold, old, now, reset_value])


def fire(neuron: LIFDynamics, shifted: Tensor) -> Tensor:
    """Spikes of ``u - threshold`` in its own dtype, without a graph."""
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


def _arrays(fields: dict[str, Any], **absent: Tensor) -> dict[str, Any]:
    """View every tensor as a NumPy array, once a sequence; ``absent`` stands in for tensors that are None."""
    tensors = absent | {name: value for name, value in fields.items() if isinstance(value, Tensor)}
    return {name: tensor.numpy() for name, tensor in tensors.items()}


class ForwardNeuron:
    """Runs the neuron forward and records what the adjoint needs."""

    def __init__(self, neuron: LIFDynamics, p: Tensor, drive: Tensor, synapse: Tensor, membrane: Tensor, bias: Tensor,
                 mask: Tensor | None, keep_current: bool, compiled: bool) -> None:  # fmt: skip
        self.neuron, self.p, self.drive, self.switches = neuron, p, drive, Switches.of(neuron)
        self.bias, self.mask, self.keep, self.compiled = bias, mask, keep_current, compiled
        self.at_once = compiled and neuron.heaviside and neuron.spiking  # the kernel fires by itself
        self.carry, self.v = synapse.clone(), membrane.clone()
        self.spikes, self.membrane = torch.empty_like(drive), torch.empty_like(drive)
        self.u = torch.empty_like(drive) if neuron.immediate_reset else self.membrane
        self.current = torch.empty_like(drive if keep_current else drive[:1])  # i_t, of all steps or the newest
        self.shifted = torch.empty_like(self.v)
        self.r = torch.zeros_like(self.v)
        if neuron.delayed_reset:
            self.r.copy_(fire(neuron, self.v - p[THRESHOLD]))
        self.first_reset = self.r.clone()
        if compiled:
            self.a = _arrays(vars(self), mask=self.shifted)

    def step(self, t: int, recurrent: Tensor | None) -> Tensor:
        """Advance to step ``t`` with the recurrent current ``(batch, post)``; return its spikes ``(batch, post)``."""
        neuron = self.neuron
        self._integrate(t, recurrent)
        self._commit(t, self.shifted if self.at_once else fire(neuron, self.shifted))
        if neuron.delayed_reset and neuron.reset_when == "both":
            self.r.copy_(fire(neuron, self.v - self.p[THRESHOLD]))
        return self.spikes[t]

    def _integrate(self, t: int, recurrent: Tensor | None) -> None:
        w = self.switches
        if self.compiled:
            a = self.a
            flow_in = a["shifted"] if recurrent is None else recurrent.numpy()
            integrate(
                t, a["drive"], flow_in, recurrent is not None, a["mask"], self.mask is not None, a["p"], a["bias"],
                self.neuron.synapse_decay is not None, w.zero_old, self.neuron.delayed_reset, w.wipe, a["r"],
                a["carry"], a["v"], a["u"], a["shifted"], a["current"], self.keep,
            )  # fmt: skip
            return
        p, r, flow, old = self.p, self.r, self.drive[t], self.v
        if recurrent is not None:
            extra = recurrent + self.bias
            flow = flow + (extra if self.mask is None else self.mask * extra)
        flow = flow + self.carry
        self.carry = p[ALPHA] * flow
        self.current[t if self.keep else 0] = flow
        if w.zero_old:
            old = old - r * (old - p[RESET_VALUE])
        new = p[DECAY] * old + p[GAIN] * flow + p[OFFSET] - r * p[SUBTRACT_OLD]
        if w.wipe:
            new = new - r * (new - p[RESET_VALUE])
        self.u[t] = new
        torch.sub(new, p[THRESHOLD], out=self.shifted)

    def _commit(self, t: int, spikes: Tensor) -> None:
        neuron, w = self.neuron, self.switches
        follows = neuron.delayed_reset and neuron.reset_when == "next"
        if self.compiled:
            a = self.a
            commit(
                t, spikes.contiguous().numpy(), self.at_once, a["p"], neuron.immediate_reset, w.zero_now, follows,
                a["r"], a["v"], a["u"], a["membrane"], a["spikes"],
            )  # fmt: skip
            return
        p, new = self.p, self.u[t]
        if neuron.immediate_reset:
            new = new - (spikes - self.r) * (p[SUBTRACT_NOW] + w.zero_now * (new - p[RESET_VALUE]))
            self.membrane[t] = new
        self.v.copy_(new)
        self.spikes[t] = spikes
        if follows:
            self.r.copy_(spikes)


class BackwardNeuron:
    """Runs the adjoint, last step first, and then reduces the gradients of the neuron's own numbers, once."""

    def __init__(self, neuron: LIFDynamics, p: Tensor, spikes: Tensor, membrane: Tensor, u: Tensor, start: Tensor,
                 first_reset: Tensor, grad_spikes: Tensor, grad_membrane: Tensor, mask: Tensor | None,
                 record: int, compiled: bool) -> None:  # fmt: skip
        self.neuron, self.p, self.switches, self.compiled = neuron, p, Switches.of(neuron), compiled
        self.scales = dataclasses.astuple(self.switches)
        self.mask, self.spikes, self.membrane, self.u, self.start = mask, spikes, membrane, u, start
        self.grad_spikes, self.grad_membrane = grad_spikes.contiguous(), grad_membrane.contiguous()
        self.part = max(1, SLOPE_NUMBERS // max(1, start.numel()))  # steps
        self.first_r, self.later_r = first_reset, self._later_resets()
        self.gv, self.gs = torch.zeros_like(start), torch.zeros_like(start)
        self.gi = torch.zeros_like(start)
        self.grad_drive = torch.empty_like(spikes)
        self.record = record  # 0: nothing, 1: W_t, 2: also V_t and what flows through the spikes
        nothing = spikes.new_empty(1, 1, 1)
        alike = neuron.synapse_decay is None and bool((p[GAIN] == 1).all())  # then W_t is the drive's gradient
        self.into_sum = self.grad_drive if alike else torch.empty_like(spikes) if record > 0 else nothing
        self.into_membrane, self.into_spike = (torch.empty_like(spikes) if record > 1 else nothing for _ in range(2))
        if compiled:
            self.a = _arrays(vars(self))

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
        return torch.cat([self.first_r.unsqueeze(0), self.later_r])

    def step(self, t: int, back: Tensor | None) -> Tensor:
        """Go back through step ``t``, given x[t+1]'s gradient ``back``; return g[t]. Both are ``(batch, post)``."""
        row = t % self.part
        if t == len(self.u) - 1 or row == self.part - 1:
            self.slope = slope(self.neuron, self.u[t - row : t + 1], self.p[THRESHOLD])
        if self.compiled:
            a, steep = self.a, self.slope[row].numpy()
            adjoint(
                t, a["grad_spikes"], a["grad_membrane"], steep, a["spikes"], a["later_r"], a["first_r"],
                a["u"], a["membrane"], a["start"], a["p"], self.scales, self.neuron.synapse_decay is not None,
                a["gv"] if back is None else back.numpy(), back is not None, a["gv"], a["gi"], a["gs"], a["grad_drive"],
                a["into_sum"], a["into_membrane"], a["into_spike"], self.record,
            )  # fmt: skip
        else:
            self._torch_step(t, back)
        return self._masked(self.grad_drive[t])

    def _masked(self, gradient: Tensor) -> Tensor:
        return gradient if self.mask is None else self.mask * gradient

    def _torch_step(self, t: int, back: Tensor | None) -> None:
        p, w = self.p, self.switches
        early = self.later_r[t - 1] if t and len(self.later_r) else self.first_r
        ds, dv = self.grad_spikes[t] + self.gs, self.grad_membrane[min(t, len(self.grad_membrane) - 1)] + self.gv
        if back is not None:
            ds = ds + back
        if w.through_now:
            ds = ds - (p[SUBTRACT_NOW] + w.zero_now * (self.u[t] - p[RESET_VALUE])) * dv
        into_spike = ds * self.slope[t % self.part]
        du = dv * (1 - w.zero_now * (self.spikes[t] - early)) + into_spike
        dw = du * (1 - w.wipe * early)
        if w.through_old:
            old = self.membrane[t - 1] if t else self.start
            self.gs = -(p[SUBTRACT_OLD] + w.zero_old * p[DECAY] * (old - p[RESET_VALUE])) * du
        self.gv = p[DECAY] * dw * (1 - w.zero_old * early)
        self.gi = p[GAIN] * dw + p[ALPHA] * self.gi
        self.grad_drive[t] = self.gi
        if self.record > 0:
            self.into_sum[t] = dw
        if self.record > 1:
            self.into_membrane[t], self.into_spike[t] = dv, into_spike

    def finish(self) -> None:
        """Let what reaches r_0, the spike before the first step, go on to the initial membrane."""
        self.into_first_reset = torch.zeros_like(self.gs)
        if self.switches.through_old:
            self.into_first_reset = self.gs * slope(self.neuron, self.start, self.p[THRESHOLD])
            self.gv += self.into_first_reset

    def add_to_current(self, t: int, gradient: Tensor) -> Tensor:
        """Add a gradient ``(batch, post)`` that arrives at i_t from outside, right after ``step(t)``; return g[t]."""
        self.gi += gradient
        self.grad_drive[t] += gradient
        return self._masked(self.grad_drive[t])

    def parameter_gradients(self, current: Tensor | None, want: tuple[bool, ...]) -> tuple[Tensor | None, ...]:
        """Reduce over time and batch: gradients ``(post,)`` in the order of ``dynamics.PARAMETERS``."""
        p, w, dw = self.p, self.switches, self.into_sum
        out: list[Tensor | None] = [None] * 6
        if want[0]:
            decay = (dw[0] * self.start).sum(0) + (dw[1:] * self.membrane[:-1]).sum((0, 1))
            if w.zero_old:
                old = torch.cat([self.start.unsqueeze(0), self.membrane[:-1]])
                decay = decay - (dw * self._resets() * (old - p[RESET_VALUE])).sum((0, 1))
            out[0] = decay
        if want[1] and current is not None:
            out[1] = (self.grad_drive[1:] * current[:-1]).sum((0, 1))
        if want[2] and current is not None:
            out[2] = (dw * current).sum((0, 1))
        if want[3]:
            out[3] = dw.sum((0, 1))
        if want[4] or want[5]:
            out[4], out[5] = self._reset_gradients()
        return tuple(out)

    def _reset_gradients(self) -> tuple[Tensor, Tensor]:
        """Gradients of threshold and reset value."""
        p, w, r, dv = self.p, self.switches, self._resets(), self.into_membrane
        gate = self.spikes - r
        du = dv * (1 - w.zero_now * gate) + self.into_spike
        threshold = self.into_spike.sum((0, 1)) + self.into_first_reset.sum(0)
        if self.neuron.reset == "subtract":
            threshold = threshold + (float(self.neuron.immediate_reset) * gate * dv + r * du).sum((0, 1))
        value = w.zero_now * gate * dv + (w.wipe + w.zero_old * p[DECAY]) * r * du
        return -threshold, value.sum((0, 1))
