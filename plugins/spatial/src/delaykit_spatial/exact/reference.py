r"""The judge of exact spike times: one sample after the other, and every arrival on its own.

An arrival at ``a`` steps jumps the current by ``w e`` and the membrane by ``tau_syn w (1 - e)`` at the end of its step
``ceil(a)``, with ``e = exp(-dt (ceil(a) - a) / tau_syn)``. A crossing found as a number ``lead_0`` before the end of
its step gets its gradient from ``lead = lead_0 + (v(lead_0) - threshold) / v'(lead_0)``. Autograd does all the rest.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from delaykit_spatial.exact.neuron import ExactState, Neuron

Table = list[list[Tensor]]  # [step][neuron]


def arrivals(
    spikes: Tensor, clock: Tensor | None, weight: Tensor, delay: Tensor, slots: Tensor, tau_syn: float, dt: float
) -> tuple[Tensor, Tensor]:
    """Sum the jumps of current and membrane; see :func:`.exact_arrivals`."""
    steps, batch, _ = spikes.shape
    delay = delay.expand(weight.shape)
    if not steps * batch:
        return (spikes.new_zeros(steps, batch, len(weight)),) * 2
    samples = []
    for b in range(batch):
        current, membrane = (_table(spikes.new_zeros(steps, len(weight))) for _ in range(2))
        for t in range(steps):
            tick = torch.zeros_like(spikes[t, b]) if clock is None else clock[t, b]
            _send(t, spikes[t, b].detach(), tick, weight, delay, tau_syn, dt, current, membrane)
        samples.append((_rows(current), _rows(membrane)))
    return torch.stack([s[0] for s in samples], 1), torch.stack([s[1] for s in samples], 1)


def rollout(
    i_jump: Tensor, v_jump: Tensor | None, neuron: Neuron, weight: Tensor | None, delay: Tensor | None,
    slots: Tensor | None, once: bool, rescale_every: int, min_slope: float, timed: bool,
    surrogate: bool = True,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Run the neuron, see :func:`.exact_rollout`; last, the membrane before the reset."""
    steps, batch, _ = i_jump.shape
    if not batch:
        return (torch.zeros_like(i_jump),) * 4
    samples = []
    for b in range(batch):
        current = _table(i_jump[:, b])
        membrane = _table(torch.zeros_like(i_jump[:, b]) if v_jump is None else v_jump[:, b])
        state, fired = neuron.start(i_jump[0, b]), torch.zeros_like(i_jump[0, b], dtype=torch.bool)
        record = []
        for t in range(steps):
            if rescale_every and t and t % rescale_every == 0:
                state = ExactState(*(_rescaled(x) for x in state))
            lead, due, reached, state = _step(state, fired, torch.stack(current[t]), torch.stack(membrane[t]), neuron,
                                              min_slope)  # fmt: skip
            if once:
                fired = fired | due
                state = state._replace(membrane=torch.where(fired, 0.0, state.membrane))
            tick = -lead / neuron.dt
            if weight is not None and delay is not None:
                told, sent = tick if timed else tick.detach(), due.to(lead)
                given = (weight, delay.expand(weight.shape), neuron.tau_syn, neuron.dt)
                _send(t + 1, sent, told, *given, current, membrane)
            record.append((due.to(lead), tick, state.membrane, reached))
        samples.append([torch.stack(x) for x in zip(*record, strict=True)])
    spikes, clock, membranes, before = (torch.stack(x, 1) for x in zip(*samples, strict=True))
    return spikes, clock, membranes, before


def _step(
    state: ExactState, fired: Tensor, current: Tensor, membrane: Tensor, neuron: Neuron, min_slope: float
) -> tuple[Tensor, Tensor, Tensor, ExactState]:
    """Take one step with its jumps, each ``(post,)``; return lead, who fires, the membrane before resets, the state.

    Who has crossed the threshold before the arrivals, taken together as one that leaves the same, fires without them.
    """
    before, after = neuron.flow(state), neuron.flow(state, membrane)
    after = after._replace(synapse=after.synapse + current)
    early, i, v = (x.detach().tolist() for x in (neuron.lead(before, min_slope), current, membrane))
    crossed, first = (before.membrane >= neuron.threshold) & ~fired, torch.zeros_like(fired)
    for j in range(len(fired)):
        behind = v[j] / (neuron.tau_syn * i[j]) if i[j] else 0.0  # what the arrivals say of their time
        first[j] = bool(crossed[j]) and math.expm1(early[j] / neuron.tau_syn) >= behind
    due = first | ((after.membrane >= neuron.threshold) & ~fired)
    at = ExactState(*(torch.where(first, x, y) for x, y in zip(before, after, strict=True)))
    lead = _lead(at, due, neuron, min_slope)
    restarted = neuron.restart(at, lead) + torch.where(first, membrane, 0.0)
    jump = getattr(neuron, "jump", 0.0)
    reset = ExactState(
        torch.where(due, restarted, after.membrane), after.synapse,
        after.adaptation + jump * due.to(lead) - neuron.adaptation_rate * lead,
    )  # fmt: skip
    return lead, due, torch.where(fired, 0.0, at.membrane), reset


def _lead(at: ExactState, due: Tensor, neuron: Neuron, min_slope: float) -> Tensor:
    """Return how long before the end of the step the threshold was crossed, 0 where it was not."""
    found = ExactState(*(x.detach() for x in at))
    lead = torch.where(due, neuron.lead(found, min_slope), 0.0)
    keep, gain = neuron.back(lead)
    v, i, a = (x - x.detach() for x in at)  # zero in value: how the membrane at the crossing moves with the state
    moved = keep * (v - gain * (i - a))
    return torch.where(due, lead + moved / neuron.slope(found, lead).clamp(min=min_slope), 0.0)


def _send(
    step: int, spikes: Tensor, tick: Tensor, weight: Tensor, delay: Tensor, tau_syn: float, dt: float,
    current: Table, membrane: Table,
) -> None:  # fmt: skip
    """Let the spikes ``(pre,)`` that came ``tick`` after the end of ``step`` arrive, one by one; or get lost."""
    for i in spikes.nonzero().flatten().tolist():
        for j in range(len(weight)):
            late = delay[j, i] + tick[i]
            whole = math.ceil(float(late.detach()))
            if step + whole < len(current):
                kept = torch.exp(-dt * (whole - late) / tau_syn)
                sent = weight[j, i] * spikes[i]
                current[step + whole][j] = current[step + whole][j] + sent * kept
                membrane[step + whole][j] = membrane[step + whole][j] + tau_syn * sent * (1 - kept)


def _rescaled(x: Tensor) -> Tensor:
    """Return x, whose gradient g becomes g / (1 + |g|)."""
    x = x.clone()
    if x.requires_grad:
        x.register_hook(lambda g: g / (1 + g.square().sum().sqrt()))
    return x


def _table(rows: Tensor) -> Table:
    return [list(row) for row in rows]


def _rows(table: Table) -> Tensor:
    return torch.stack([torch.stack(row) for row in table])
