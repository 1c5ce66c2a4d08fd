"""Backend ``torch`` of the operator: plain torch on any device, with a hand-written adjoint.

A loop over arrivals, vectorised over samples and neurons. Several spikes of one neuron between two arrivals are found
in rounds, at most one spike a neuron in each.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from delaykit_timing.dynamics import TimingDynamics, membrane_response
from delaykit_timing.spikes import InputSpikes, Record


def run(arrivals: InputSpikes, weight: Tensor, dynamics: TimingDynamics) -> tuple[Record, Tensor]:
    """Find all spikes.

    Args:
        arrivals: sorted input.
        weight: ``(post, pre)``.
        dynamics: the neuron.

    Returns:
        Spikes, and the potential at the end of the window, ``(sample, post)``, float64.
    """
    times, weights, _ = _ordered(arrivals, weight, dynamics)
    current = torch.zeros(arrivals.batch, len(weight), dtype=torch.float64, device=weight.device)
    potential, fired = torch.zeros_like(current), torch.zeros_like(current)
    limit = math.inf if dynamics.max_spikes is None else dynamics.max_spikes
    rounds: list[tuple[int, Tensor, Tensor, Tensor]] = []
    for m in range(weights.shape[-1]):
        here, left = times[..., m].expand_as(current), (times[..., m + 1] - times[..., m]).expand_as(current)
        current = current + weights[..., m]
        while True:
            elapsed = _first_crossing(current, potential, left, dynamics)
            spikes = torch.isfinite(elapsed) & (fired < limit)
            if not bool(spikes.any()):
                break
            elapsed = torch.where(spikes, elapsed, 0.0)
            current = current * torch.exp(-elapsed / dynamics.tau_synapse)
            potential = torch.where(spikes, 0.0, potential)
            here, left, fired = here + elapsed, left - elapsed, fired + spikes
            rounds.append((m, spikes, here[spikes], current[spikes]))
        potential = potential * torch.exp(-left / dynamics.tau_v) + current * membrane_response(left, dynamics)
        current = current * torch.exp(-left / dynamics.tau_synapse)
    return _record(rounds, current), potential


def gradients(
    arrivals: InputSpikes,
    weight: Tensor,
    dynamics: TimingDynamics,
    record: Record,
    grad_when: Tensor,
    grad_potential: Tensor,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Go back from spikes and potentials.

    Args:
        arrivals: as given to :func:`run`.
        weight: ``(post, pre)``.
        dynamics: the neuron.
        record: spikes that :func:`run` found.
        grad_when: gradient of each spike's time, ``(spike,)``.
        grad_potential: gradient of the potential at the end, ``(sample, post)``.

    Returns:
        Gradients of the times ``(sample, slot)``, the weight ``(post, pre)``, and of the delays where there are any.
    """
    times, weights, order = _ordered(arrivals, weight, dynamics)
    g_i, g_v = torch.zeros_like(grad_potential), grad_potential.clone()
    floor, end = dynamics.slope_floor * dynamics.threshold / dynamics.tau_v, len(record.when)
    rounds = list(record.begin)
    jumps, shifts = [], []

    def go_back(elapsed: Tensor) -> tuple[Tensor, Tensor]:
        decayed = g_i * torch.exp(-elapsed / dynamics.tau_synapse) + g_v * membrane_response(elapsed, dynamics)
        return decayed, g_v * torch.exp(-elapsed / dynamics.tau_v)

    for m in reversed(range(weights.shape[-1])):
        at = times[..., m + 1].expand_as(g_v).clone()
        while rounds and rounds[-1][0] == m:
            _, first = rounds.pop()
            place = record.sample[first:end], record.neuron[first:end].long()
            when, strength, grad = record.when[first:end], record.strength[first:end], grad_when[first:end]
            end, elapsed = first, torch.zeros_like(at)
            elapsed[place] = at[place] - when
            g_i, g_v = go_back(elapsed)
            slope = (strength - dynamics.threshold / dynamics.tau_v).clamp(min=floor)
            g_v = g_v.index_put(place, -(grad - g_v[place] * strength) / slope)
            at[place] = when
        g_i, g_v = go_back(at - times[..., m])
        jumps.append(g_i)
        shifts.append(weights[..., m] * (g_i / dynamics.tau_synapse - g_v))
    return _collect(arrivals, weight, order, jumps, shifts)


def _ordered(arrivals: InputSpikes, weight: Tensor, dynamics: TimingDynamics) -> tuple[Tensor, Tensor, Tensor]:
    """Arrival times with the end behind them ``(sample, 1 | post, slot + 1)``, their weights and their slots."""
    slots = arrivals.times.shape[1]
    filled = torch.arange(slots, device=weight.device) < arrivals.counts[:, None]
    times = torch.where(filled, arrivals.times.detach().double(), math.inf).unsqueeze(1)
    weights = weight.detach().double().T[arrivals.neurons].transpose(1, 2)  # (sample, post, slot)
    order = torch.arange(slots, device=weight.device).expand(arrivals.batch, 1, slots)
    if arrivals.delays is not None:
        times, order = (times + arrivals.delays.detach().double().T[arrivals.neurons].transpose(1, 2)).sort(-1)
        weights = weights.gather(-1, order)
    late = times >= dynamics.end
    times = torch.where(late, dynamics.end, times)
    ends = times.new_full((*times.shape[:-1], 1), dynamics.end)
    return torch.cat([times, ends], -1), torch.where(late, 0.0, weights), order


def _first_crossing(current: Tensor, potential: Tensor, left: Tensor, dynamics: TimingDynamics) -> Tensor:
    """Time until V reaches the threshold within ``left``, infinity where it does not."""
    threshold, tau_v = dynamics.threshold, dynamics.tau_v
    if math.isinf(threshold):
        return torch.full_like(current, math.inf)
    if dynamics.tau_synapse == 2 * tau_v:
        a = current * dynamics.tau_synapse
        inside = a * a - 4 * (a - potential) * threshold
        root = 2 * (a - potential) / (a + inside.clamp(min=0).sqrt())
        elapsed = dynamics.tau_synapse * root.clamp(min=1).log()
        possible = (inside >= 0) & (a > 2 * threshold)
    else:
        elapsed, possible = _newton(current, potential, left, dynamics)
    at_once = potential >= threshold
    elapsed = torch.where(at_once, 0.0, elapsed)
    return torch.where((possible | at_once) & (current > 0) & (elapsed < left), elapsed, math.inf)


def _newton(current: Tensor, potential: Tensor, left: Tensor, dynamics: TimingDynamics) -> tuple[Tensor, Tensor]:
    """From the left, on a concave rise: every iterate stays before the crossing."""
    threshold, tau_v = dynamics.threshold, dynamics.tau_v
    elapsed = torch.zeros_like(current)
    searching = (current > 0) & (left > 0)
    possible = torch.zeros_like(searching)
    for _ in range(200):
        v = potential * torch.exp(-elapsed / tau_v) + current * membrane_response(elapsed, dynamics)
        slope = current * torch.exp(-elapsed / dynamics.tau_synapse) - v / tau_v
        possible |= searching & (v >= threshold)
        searching &= (v < threshold) & (slope > 0)
        step = torch.where(searching, (threshold - v) / slope, 0.0)
        elapsed = elapsed + step
        searching &= elapsed < left
        possible |= searching & (step <= 1e-16 * tau_v)
        searching &= ~possible
        if not bool(searching.any()):
            break
    return elapsed, possible | searching


def _record(rounds: list[tuple[int, Tensor, Tensor, Tensor]], like: Tensor) -> Record:
    begin, columns, total = [], [], 0
    for m, spikes, when, strength in rounds:
        sample, neuron = spikes.nonzero(as_tuple=True)
        columns.append((sample, torch.full_like(sample, m), neuron, when, strength))
        begin.append((m, total))
        total += len(sample)
    if columns:
        sample, interval, neuron, when, strength = (torch.cat(column) for column in zip(*columns, strict=True))
        return Record(sample, interval, neuron, when, strength, begin)
    whole, real = torch.zeros(0, dtype=torch.int64, device=like.device), like.new_zeros(0)
    return Record(whole, whole, whole, real, real, begin)


def _collect(
    arrivals: InputSpikes, weight: Tensor, order: Tensor, jumps: list[Tensor], shifts: list[Tensor]
) -> tuple[Tensor, Tensor, Tensor | None]:
    batch, slots = arrivals.times.shape
    if not jumps:
        empty = torch.zeros(weight.shape, dtype=torch.float64, device=weight.device)
        return arrivals.times.new_zeros(batch, slots).double(), empty, None if arrivals.delays is None else empty
    post = len(weight)
    jump, shift = (torch.stack(values[::-1], -1) for values in (jumps, shifts))  # (sample, post, slot)
    order = order.expand(batch, post, slots)
    jump = torch.zeros_like(jump).scatter(-1, order, jump)
    shift = torch.zeros_like(shift).scatter(-1, order, shift)
    filled = torch.arange(slots, device=weight.device) < arrivals.counts[:, None]
    jump, shift = (torch.where(filled[:, None], values, 0.0) for values in (jump, shift))

    def by_synapse(values: Tensor) -> Tensor:
        target = values.new_zeros(weight.shape[1], post)
        return target.index_add(0, arrivals.neurons.flatten(), values.transpose(1, 2).flatten(0, 1)).T

    return shift.sum(1), by_synapse(jump), None if arrivals.delays is None else by_synapse(shift)
