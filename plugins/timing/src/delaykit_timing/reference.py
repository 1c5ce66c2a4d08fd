"""The judge: one neuron at a time, every sum written out, roots by bisection, gradients by autograd.

Slow and obvious. After its latest spike at t_l a neuron's potential is

``V(t) = I(t_l) kappa(t - t_l) + sum_{t_l < t_k <= t} w_k kappa(t - t_k)``,
``I(t_l) = sum_{t_k <= t_l} w_k exp(-(t_l - t_k) / tau_synapse)``,

and a spike time found as a number t_0 gets its gradient from ``t = t_0 - (V(t_0) - threshold) / V'(t_0)``.
"""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor

from delaykit_timing.dynamics import TimingDynamics, membrane_response
from delaykit_timing.spikes import InputSpikes, Record


def layer(arrivals: InputSpikes, weight: Tensor, dynamics: TimingDynamics) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Find all spikes, differentiable by autograd.

    Args:
        arrivals: sorted input; its times and delays may need gradients.
        weight: ``(post, pre)``.
        dynamics: the neuron.

    Returns:
        Time, sample and neuron of each spike, and the potential at the end ``(sample, post)``, in float64.
    """
    spikes: list[tuple[Tensor, int, int]] = []
    potentials = []
    for b in range(arrivals.batch):
        for j in range(len(weight)):
            found, potential = neuron_spikes(*_received(arrivals, weight, dynamics, b, j), dynamics)
            spikes += [(when, b, j) for when in found]
            potentials.append(potential)
    nothing = weight.new_zeros(0, dtype=torch.float64)
    when = torch.stack([s[0] for s in spikes]) if spikes else nothing
    sample, neuron = (torch.tensor([s[k] for s in spikes], dtype=torch.int64) for k in (1, 2))
    end = torch.stack(potentials) if potentials else nothing
    return when, sample, neuron, end.reshape(arrivals.batch, len(weight))


@torch.no_grad()
def run(arrivals: InputSpikes, weight: Tensor, dynamics: TimingDynamics) -> tuple[Record, Tensor]:
    """Find all spikes; see :func:`delaykit_timing.torch.run`."""
    when, sample, neuron, potential = layer(arrivals, weight, dynamics)
    interval, strength = torch.zeros_like(sample), torch.zeros_like(when)
    for k, (t, b, j) in enumerate(zip(when, sample.tolist(), neuron.tolist(), strict=True)):
        times, weights = _received(arrivals, weight, dynamics, b, j)
        here = times <= t
        interval[k] = here.sum() - 1
        strength[k] = (weights[here] * torch.exp(-(t - times[here]) / dynamics.tau_synapse)).sum()
    return Record(sample, interval, neuron, when, strength, None), potential


@torch.enable_grad()
def gradients(
    arrivals: InputSpikes,
    weight: Tensor,
    dynamics: TimingDynamics,
    record: Record,
    grad_when: Tensor,
    grad_potential: Tensor,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Go back by autograd, through a run of its own; see :func:`delaykit_timing.torch.gradients`."""
    times, weight = (x.detach().double().requires_grad_() for x in (arrivals.times, weight))
    delays = None if arrivals.delays is None else arrivals.delays.detach().double().requires_grad_()
    again = dataclasses.replace(arrivals, times=times, delays=delays)
    when, _, _, potential = layer(again, weight, dynamics)
    outputs, ways = [when, potential], [grad_when, grad_potential]
    needed = [k for k, one in enumerate(outputs) if one.requires_grad]
    leaves = [x for x in (times, weight, delays) if x is not None]
    zeros = tuple(torch.zeros_like(x) for x in leaves)
    if needed:
        found = torch.autograd.grad([outputs[k] for k in needed], leaves, [ways[k] for k in needed], allow_unused=True)
        zeros = tuple(z if g is None else g for g, z in zip(found, zeros, strict=True))
    return zeros[0], zeros[1], None if delays is None else zeros[2]


def _received(arrivals: InputSpikes, weight: Tensor, dynamics: TimingDynamics, b: int, j: int) -> tuple[Tensor, Tensor]:
    """Return what neuron ``j`` receives in sample ``b`` within the window: times, ascending, and weights, float64."""
    filled = int(arrivals.counts[b])
    times, sources = arrivals.times[b, :filled].double(), arrivals.neurons[b, :filled]
    own = times if arrivals.delays is None else times + arrivals.delays[j, sources]
    own, order = own.sort(stable=True)
    early = own.detach() < dynamics.end
    return own[early], weight[j, sources[order][early]].double()


def neuron_spikes(times: Tensor, weight: Tensor, dynamics: TimingDynamics) -> tuple[list[Tensor], Tensor]:
    """Find the spikes of one neuron.

    Args:
        times: arrivals, ascending, ``(arrival,)``.
        weight: weight of each, ``(arrival,)``.
        dynamics: the neuron.

    Returns:
        Spike times in order, and the potential at the end of the window.

    Example:
        >>> spikes, _ = neuron_spikes(torch.tensor([0.1, 0.2]), torch.tensor([4.0, 4.0]), TimingDynamics(0.8))
        >>> [f"{float(t):.4f}" for t in spikes]
        ['0.3280', '0.5744']
    """
    found: list[Tensor] = []
    edges = [float(t) for t in times.detach()] + [dynamics.end]
    limit = math.inf if dynamics.max_spikes is None else dynamics.max_spikes
    for m in range(len(times)):
        start = edges[m]
        while len(found) < limit:
            crossing = _crossing(start, edges[m + 1], times, weight, m + 1, found, dynamics)
            if crossing is None:
                break
            at = torch.tensor(crossing, dtype=times.dtype)
            potential, slope = _state(at, times, weight, m + 1, found, dynamics)
            floor = dynamics.slope_floor * dynamics.threshold / dynamics.tau_v
            found.append(at - (potential - dynamics.threshold) / slope.detach().clamp(min=floor))
            start = crossing
    end = torch.tensor(dynamics.end, dtype=times.dtype)
    return found, _state(end, times, weight, len(times), found, dynamics)[0]


def _state(
    t: Tensor, times: Tensor, weight: Tensor, arrived: int, spikes: list[Tensor], dynamics: TimingDynamics
) -> tuple[Tensor, Tensor]:
    """Potential and its slope at ``t`` from the first ``arrived`` arrivals and the spikes so far."""
    times, weight = times[:arrived], weight[:arrived]
    if not spikes:
        potential = (weight * membrane_response(t - times, dynamics)).sum()
    else:
        last = spikes[-1]
        before = times.detach() <= float(last.detach())
        at_last = (weight * torch.exp(-(last - times) / dynamics.tau_synapse))[before].sum()
        since = (weight * membrane_response((t - times).clamp(min=0), dynamics))[~before].sum()
        potential = at_last * membrane_response(t - last, dynamics) + since
    current = (weight * torch.exp(-(t - times) / dynamics.tau_synapse)).sum()
    return potential, current - potential / dynamics.tau_v


@torch.no_grad()
def _crossing(
    low: float, high: float, times: Tensor, weight: Tensor, arrived: int, spikes: list[Tensor], dynamics: TimingDynamics
) -> float | None:
    """First time in [low, high) at which the potential reaches the threshold: bisect for the peak, then for it."""
    if not low < high:
        return None

    def state(t: float) -> tuple[float, float]:
        potential, slope = _state(torch.tensor(t, dtype=times.dtype), times, weight, arrived, spikes, dynamics)
        return float(potential), float(slope)

    if spikes and float(spikes[-1].detach()) == low:
        rising = state(low)[1] > 0
    else:
        potential, slope = state(low)
        if potential >= dynamics.threshold:
            return low
        rising = slope > 0
    if not rising:
        return None
    peak = high if state(high)[1] > 0 else _bisect(lambda t: state(t)[1] <= 0, low, high)
    if not (state(peak)[0] >= dynamics.threshold):
        return None
    at = _bisect(lambda t: state(t)[0] >= dynamics.threshold, low, peak)
    return at if at < high else None


def _bisect(holds, low: float, high: float) -> float:  # type: ignore[no-untyped-def]
    """Smallest number at which a condition holds that is false at ``low`` and true at ``high``."""
    while True:
        middle = 0.5 * (low + high)
        if not low < middle < high:
            return high
        low, high = (low, middle) if holds(middle) else (middle, high)
