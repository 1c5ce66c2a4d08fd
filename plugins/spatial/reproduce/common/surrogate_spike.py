r"""Neurons that fire at most once, by the other estimator: interpolated arrivals and a surrogate of the threshold.

Up to its only spike a neuron has not been reset, so its membrane is a linear filter of what arrives,
``v[t] = sum_a eps(t - a) current[a]``. With s_t the SuperSpike of ``v[t] - threshold`` and T steps, the first spike is
``t_first = sum_t prod_{u <= t} (1 - s_u)``; what comes after it has no gradient.
"""

from __future__ import annotations

import torch
from torch import Tensor

from delaykit.arrivals import Linear
from delaykit.functional.delayed_linear import delayed_linear
from delaykit_spatial.exact import ExactLIF, SuperSpike


def surrogate_spikes(
    spikes: Tensor, weight: Tensor, delay: Tensor, neuron: ExactLIF, slope: float
) -> tuple[Tensor, Tensor]:
    """Return the spikes of a layer, and the time of each neuron's only one.

    Args:
        spikes: ``(time, batch, pre)``.
        weight: ``(post, pre)``.
        delay: in steps, ``(post, pre)`` or ``(1, 1)``.
        neuron: its time constants, threshold and step.
        slope: steepness of the surrogate.

    Returns:
        ``(time, batch, post)`` and ``(batch, post)`` in steps, one more than there are steps for silence.
    """
    steps = len(spikes)
    current = delayed_linear(spikes, weight, Linear().taps(delay.expand(weight.shape)))
    membrane = (_response(neuron, steps).to(current) @ current.flatten(1)).view_as(current)
    fired = SuperSpike(slope)(membrane - neuron.threshold)
    still = (fired.detach().cumsum(0) - fired.detach()) == 0  # up to the first, and at it
    first = torch.where(still & (fired.detach() == 0), 1.0, 0.0).sum(0)
    first = torch.where(first == steps, steps + 1.0, first)
    fired = fired * still
    step = torch.arange(steps, dtype=current.dtype).reshape(-1, 1, 1)
    later = torch.where(
        step < first, first - step, (steps - first).clamp(min=0.0)
    )  # how much a spike here would move it
    return fired, first - (later * (fired - fired.detach())).sum(0)


def _response(neuron: ExactLIF, steps: int) -> Tensor:
    """Return eps(t - a), (time, time), of arrivals that count from the next step on."""
    u = torch.arange(steps, dtype=torch.float64) * neuron.dt
    scale = 1 / (1 / neuron.tau_mem - 1 / neuron.tau_syn)
    response = (torch.exp(-u / neuron.tau_syn) - torch.exp(-u / neuron.tau_mem)) * scale
    since = torch.arange(steps).unsqueeze(1) - torch.arange(steps)
    return torch.where(since > 0, response[since.clamp(min=0)], 0.0)
