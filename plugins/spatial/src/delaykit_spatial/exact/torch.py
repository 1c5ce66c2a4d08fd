r"""Exact gradients of spike times in plain torch: a loop over steps, whose autograd does almost everything.

An arrival comes ``rest`` before the end of its step, a spike ``lead`` before the end of its own. Both are carried on to
that end in value, so that the rules for tangents T[x], derivatives at a fixed time, are the derivatives of the values:

| event | value at the end of the step, ``e = exp(-rest / tau_syn)`` | rule |
|---|---|---|
| arrival of weight w | ``i += w e`` | ``T[i] += T[w] e + (w e / tau_syn) T[t]`` |
| the same | ``v += tau_syn w (1 - e)`` | ``T[v] += tau_syn (1 - e) T[w] - w e T[t]`` |
| spike | ``clock = -lead`` | ``T[t] = -T[v] / v'_before`` |
| reset | ``v = v'_after lead`` | ``T[v] = (v'_after / v'_before) T[v]`` |
| jump of the adaptation | ``a += jump - (a'_before - a'_after) lead`` | ``T[a] += (a'_before - a'_after) T[t]`` |

Only ``lead``, the root of an equation, has its rule written by hand.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from delaykit.functional.derivatives import DIFFERENCES, first_only
from delaykit_spatial.exact.neuron import ExactState, Neuron


def arrivals(
    spikes: Tensor, clock: Tensor | None, weight: Tensor, delay: Tensor, slots: Tensor, tau_syn: float, dt: float
) -> tuple[Tensor, Tensor]:
    """Sum the jumps of current and membrane; see :func:`.exact_arrivals`."""
    steps = len(spikes)
    if not steps:
        return (spikes.new_zeros(0, spikes.shape[1], len(weight)),) * 2
    current, membrane = ([spikes.new_zeros(spikes.shape[1], len(weight))] * steps for _ in range(2))
    for t in range(steps):
        tick = torch.zeros_like(spikes[t]) if clock is None else clock[t]
        _deliver(t, spikes[t], tick, weight, delay, slots, tau_syn, dt, current, membrane)
    return torch.stack(current), torch.stack(membrane)


def rollout(
    i_jump: Tensor, v_jump: Tensor | None, neuron: Neuron, weight: Tensor | None, delay: Tensor | None,
    slots: Tensor | None, once: bool, rescale_every: int, min_slope: float, timed: bool,
    surrogate: bool = True,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Run the neuron, see :func:`.exact_rollout`; last, the membrane before the reset."""
    steps = len(i_jump)
    current = list(i_jump)
    membrane = [torch.zeros_like(i_jump[0])] * steps if v_jump is None else list(v_jump)
    state = neuron.start(i_jump[0])
    fired = torch.zeros_like(i_jump[0], dtype=torch.bool)
    record: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    for t in range(steps):
        if rescale_every and t and t % rescale_every == 0:
            state = type(state)(*(_Rescale.apply(x) for x in state))
        before, after = neuron.flow(state), neuron.flow(state, membrane[t])
        after = after._replace(synapse=after.synapse + current[t])
        first = _fires_first(before, current[t], membrane[t], neuron, min_slope) & ~fired
        due = first | ((after.membrane >= neuron.threshold) & ~fired)
        at = ExactState(*(torch.where(first, x, y) for x, y in zip(before, after, strict=True)))
        lead = _Lead.apply(*at, due, neuron, min_slope)
        tick, spikes = -lead / neuron.dt, due.to(lead)
        if weight is not None and delay is not None and slots is not None:
            told = tick if timed else tick.detach()
            _deliver(t, spikes, told, weight, delay, slots + 1, neuron.tau_syn, neuron.dt, current, membrane)
        restarted = neuron.restart(at, lead) + torch.where(first, membrane[t], 0.0)
        v = torch.where(due, restarted, after.membrane)
        a = after.adaptation + getattr(neuron, "jump", 0.0) * spikes - neuron.adaptation_rate * lead
        reached = torch.where(fired, 0.0, at.membrane)
        if once:
            fired = fired | due
            v = torch.where(fired, 0.0, v)
        state = ExactState(v, after.synapse, a)
        record.append((spikes, tick, v, reached))
    spikes, clock, membranes, before_reset = (torch.stack(x) for x in zip(*record, strict=True))
    return spikes, clock, membranes, before_reset


def _deliver(
    now: int, spikes: Tensor, tick: Tensor, weight: Tensor, delay: Tensor, slots: Tensor, tau_syn: float, dt: float,
    current: list[Tensor], membrane: list[Tensor],
) -> None:  # fmt: skip
    """Send the spikes ``(batch, pre)`` of step ``now`` to the ends of the steps in which they arrive; or get lost."""
    lack = delay.detach().ceil() - delay - tick.unsqueeze(1)  # from the arrival to the end of its step, or of the next
    early = (lack >= 1).to(lack)
    sent = weight * spikes.detach().unsqueeze(1)
    kept = sent * torch.exp((early - lack) * dt / tau_syn)
    at = now + slots - early.long()
    for slot in at.unique().tolist():
        if slot < len(current):
            here = at == slot
            current[slot] = current[slot] + (kept * here).sum(-1)
            membrane[slot] = membrane[slot] + (tau_syn * (sent - kept) * here).sum(-1)


def _fires_first(before: ExactState, current: Tensor, membrane: Tensor, neuron: Neuron, min_slope: float) -> Tensor:
    """Tell who crossed the threshold before the step's arrivals came, taken together as one that leaves the same."""
    reached = before.membrane >= neuron.threshold
    arrival = torch.where(current == 0, 0.0, membrane / torch.where(current == 0, 1.0, neuron.tau_syn * current))
    lead = neuron.lead(before, min_slope)
    return (reached & (torch.expm1(lead / neuron.tau_syn) >= arrival)).detach()


class _Lead(torch.autograd.Function):
    """How long before the end of its step a neuron fired, 0 if it did not: ``T[lead] = T[v at the crossing] / v'``."""

    @staticmethod
    def forward(ctx: Any, v: Tensor, i: Tensor, a: Tensor, due: Tensor, neuron: Neuron, min_slope: float) -> Tensor:
        state = ExactState(v, i, a)
        lead = torch.where(due, neuron.lead(state, min_slope), 0.0)
        keep, gain = neuron.back(lead)
        ctx.save_for_backward(torch.where(due, keep / neuron.slope(state, lead).clamp(min=min_slope), 0.0), gain, lead)
        return lead

    @staticmethod
    @first_only("exact_rollout", DIFFERENCES)
    def backward(ctx: Any, grad_lead: Tensor) -> tuple[Tensor | None, ...]:
        factor, gain, _ = ctx.saved_tensors
        grad_v = factor * grad_lead
        return grad_v, -gain * grad_v, gain * grad_v, None, None, None


class _Rescale(torch.autograd.Function):
    """The identity, whose gradient g becomes g / (1 + |g|) for every row of the batch."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return g / (1 + torch.linalg.vector_norm(g, dim=-1, keepdim=True))
