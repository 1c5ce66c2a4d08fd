r"""Exact gradients of spike times, slow and obvious: small autograd functions in a plain loop, one rule each.

A tangent T[x] is the derivative of x at a fixed time. These are the rules; everything else is autograd's.

| event | rule |
|---|---|
| arrival of weight w at t | ``T[i] += T[w] + (w / tau_syn) T[t]``, ``T[v] -= w T[t]`` |
| spike | ``T[t] = -T[v] / v'_before`` |
| reset | ``T[v] = (v'_after / v'_before) T[v]`` |
| jump of the adaptation | ``T[a] += (a'_before - a'_after) T[t]`` |
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from delaykit.functional.exact_neurons import Neuron


def arrivals(
    spikes: Tensor, clock: Tensor | None, weight: Tensor, delay: Tensor, slots: Tensor, tau_syn: float, dt: float
) -> tuple[Tensor, Tensor]:
    """Sum the jumps of current and membrane; see :func:`delaykit.functional.exact.exact_arrivals`."""
    steps = len(spikes)
    current, membrane = ([spikes.new_zeros(spikes.shape[1], len(weight))] * steps for _ in range(2))
    for t in range(steps):
        ticks = None if clock is None else clock[t].unsqueeze(1)
        jumps = _Jump.apply(weight, delay, ticks, spikes[t].unsqueeze(1), tau_syn, dt)
        _deliver(jumps, slots + t, current, membrane)
    return torch.stack(current), torch.stack(membrane)


def rollout(
    i_jump: Tensor, v_jump: Tensor | None, neuron: Neuron, weight: Tensor | None, delay: Tensor | None,
    slots: Tensor | None, once: bool, rescale_every: int, min_slope: float, timed: bool,
    surrogate: bool = True,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Run the neuron, see :func:`delaykit.functional.exact.exact_rollout`; last, the membrane before the reset."""
    steps = len(i_jump)
    current = list(i_jump)
    membrane = [torch.zeros_like(i_jump[0])] * steps if v_jump is None else list(v_jump)
    state = neuron.start(i_jump[0])
    fired = torch.zeros_like(i_jump[0], dtype=torch.bool)
    record: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    for t in range(steps):
        if rescale_every and t and t % rescale_every == 0:
            state = type(state)(*(_Rescale.apply(x) for x in state))
        v, i, a = before = neuron.flow(state)
        due = (v >= neuron.threshold) & ~fired
        slope = neuron.slope(before).detach()
        divisor = slope.clamp(min=min_slope)
        ratio = torch.zeros_like(slope) if once else (slope + neuron.slope_change) / divisor
        tick = _Tick.apply(v, due, divisor * neuron.dt)
        spikes = due.to(v)
        if weight is not None and slots is not None:
            ticks = tick.unsqueeze(1) if timed else None
            jumps = _Jump.apply(weight, delay, ticks, spikes.unsqueeze(1), neuron.tau_syn, neuron.dt)
            _deliver(jumps, slots + (t + 1), current, membrane)
        v = torch.where(fired, 0.0, _Reset.apply(v, due, ratio) + membrane[t])  # an arrival's jump of v has value 0
        a = _Adapt.apply(a, tick, due, getattr(neuron, "jump", 0.0), neuron.adaptation_rate * neuron.dt)
        if once:
            fired = fired | due
            v = torch.where(fired, 0.0, v)
        state = type(state)(v, i + current[t], a)
        record.append((spikes, tick, v, torch.where(fired & ~due, 0.0, before.membrane)))
    spikes, clock, after, before_reset = (torch.stack(x) for x in zip(*record, strict=True))
    return spikes, clock, after, before_reset


def _deliver(jumps: tuple[Tensor, Tensor], slots: Tensor, current: list[Tensor], membrane: list[Tensor]) -> None:
    """Add jumps ``(batch, post, pre)`` to the lists at their slots ``(post, pre)``; those beyond the end are lost."""
    for slot in slots.unique().tolist():
        if slot < len(current):
            here = slots == slot
            current[slot] = current[slot] + (jumps[0] * here).sum(-1)
            membrane[slot] = membrane[slot] + (jumps[1] * here).sum(-1)


class _Jump(torch.autograd.Function):
    """The jump of the current, and one of the membrane, which is zero but not its derivative by the time."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, delay: Tensor, tick: Tensor | None, spikes: Tensor, tau_syn: float,
                dt: float) -> tuple[Tensor, Tensor]:  # fmt: skip
        ctx.save_for_backward(weight, spikes)
        ctx.tau_syn, ctx.dt, ctx.delay = tau_syn, dt, delay.shape
        jump = weight * spikes
        return jump, torch.zeros_like(jump)

    @staticmethod
    def backward(ctx: Any, into_i: Tensor, into_v: Tensor) -> tuple[Tensor | None, ...]:
        weight, spikes = ctx.saved_tensors
        into_time = weight * spikes * (into_i / ctx.tau_syn - into_v) * ctx.dt
        return (
            (into_i * spikes).sum(0), into_time.sum(0).sum_to_size(ctx.delay),
            into_time.sum(1, keepdim=True) if ctx.needs_input_grad[2] else None, None, None, None,
        )  # fmt: skip


class _Tick(torch.autograd.Function):
    """A zero for every neuron; a spike's carries the gradient of its time, in steps, to the membrane."""

    @staticmethod
    def forward(ctx: Any, v: Tensor, due: Tensor, slope: Tensor) -> Tensor:
        ctx.save_for_backward(due, slope)
        return torch.zeros_like(v)

    @staticmethod
    def backward(ctx: Any, into_time: Tensor) -> tuple[Tensor | None, ...]:
        due, slope = ctx.saved_tensors
        return torch.where(due, -into_time / slope, 0.0), None, None


class _Reset(torch.autograd.Function):
    """Set the membrane to zero where a spike is due."""

    @staticmethod
    def forward(ctx: Any, v: Tensor, due: Tensor, ratio: Tensor) -> Tensor:
        ctx.save_for_backward(due, ratio)
        return torch.where(due, 0.0, v)

    @staticmethod
    def backward(ctx: Any, into_v: Tensor) -> tuple[Tensor | None, ...]:
        due, ratio = ctx.saved_tensors
        return torch.where(due, ratio, 1.0) * into_v, None, None


class _Adapt(torch.autograd.Function):
    """Let the adaptation jump where a spike is due."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, tick: Tensor, due: Tensor, jump: float, rate: float) -> Tensor:
        ctx.save_for_backward(due)
        ctx.rate = rate
        return a + jump * due.to(a)

    @staticmethod
    def backward(ctx: Any, into_a: Tensor) -> tuple[Tensor | None, ...]:
        (due,) = ctx.saved_tensors
        return into_a, ctx.rate * into_a * due, None, None, None


class _Rescale(torch.autograd.Function):
    """The identity, whose gradient g becomes g / (1 + |g|) for every row of the batch."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return g / (1 + torch.linalg.vector_norm(g, dim=-1, keepdim=True))
