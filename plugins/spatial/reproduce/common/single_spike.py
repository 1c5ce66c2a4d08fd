r"""Neurons that fire at most once, by events: from spike times to spike times, with the same exact gradient.

Where every neuron fires once, a spike train is one number, and the membrane is a sum over the spikes received,
``v(t) = sum_i w_i eps(t - t_i - d_i)`` with ``eps(u) = (e^{-u/tau_syn} - e^{-u/tau_mem}) / (1/tau_mem - 1/tau_syn)``.
Then ``dL/dv = -(dL/dt) / v'`` at the crossing, ``dL/dw_i = dL/dv eps(u_i)`` and ``dL/dd_i = dL/dt_i = -dL/dv w_i
eps'(u_i)``. On the same grid of steps this is what ``exact_arrivals``, ``exact_rollout(once=True)`` and
``first_spike_times`` compute over whole sequences (``tests/test_spatial_reproduce.py`` compares them), without any.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

from delaykit.functional.exact import ExactLIF


def single_spikes(
    times: Tensor, weight: Tensor, delay: Tensor, neuron: ExactLIF, steps: int, min_slope: float = 1e-3
) -> Tensor:
    """Return the only spike of each neuron, with its exact gradient.

    Args:
        times: spikes received, ``(batch, pre)``, in steps; ``steps`` or later for none.
        weight: ``(post, pre)``.
        delay: in steps, >= 0, broadcastable to the weight.
        neuron: its time constants, threshold and step.
        steps: length of the sequence.
        min_slope: least slope of the membrane that a gradient is divided by, for grazing spikes.

    Returns:
        ``(batch, post)`` in steps; ``steps + 1``, without gradient, where a neuron stays silent.
    """
    return _SingleSpikes.apply(times, weight, delay.expand(weight.shape), neuron, steps, min_slope)


class _SingleSpikes(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, times: Tensor, weight: Tensor, delay: Tensor, neuron: ExactLIF, steps: int, min_slope: float
    ) -> Tensor:
        slots = times.detach().round().long().numpy()
        late = delay.detach().round().long().contiguous().numpy()
        keep_v, keep_i, gain = neuron.constants()[:3]
        rest = neuron.threshold / neuron.tau_mem
        weights = weight.detach().double().contiguous().numpy()
        first, slope = _forward(slots, weights, late, steps, keep_v, keep_i, gain, neuron.threshold, rest)
        slope = np.maximum(slope, min_slope)
        ctx.arrays, ctx.neuron, ctx.steps, ctx.dtypes = (
            (slots, weights, late, first, slope),
            neuron,
            steps,
            weight.dtype,
        )
        return torch.from_numpy(first).to(times.dtype)

    @staticmethod
    def backward(ctx: Any, into_times: Tensor) -> tuple[Tensor | None, ...]:
        neuron = ctx.neuron
        u = np.arange(ctx.steps + 1) * neuron.dt
        fast, slow = np.exp(-u / neuron.tau_syn), np.exp(-u / neuron.tau_mem)
        scale = 1 / (1 / neuron.tau_mem - 1 / neuron.tau_syn)
        response, rise = (fast - slow) * scale, (slow / neuron.tau_mem - fast / neuron.tau_syn) * scale
        grads = _backward(into_times.double().numpy(), *ctx.arrays, ctx.steps, neuron.dt, response, rise)
        before, weight, delay = (torch.from_numpy(grad) for grad in grads)
        return before.to(into_times.dtype), weight.to(ctx.dtypes), delay.to(ctx.dtypes), None, None, None


@numba.njit
def _forward(slots, weight, late, steps, keep_v, keep_i, gain, threshold, rest):  # type: ignore[no-untyped-def]
    batch, pre = slots.shape
    post = weight.shape[0]
    first, slope = np.full((batch, post), steps + 1), np.ones((batch, post))
    jumps = np.zeros(steps)
    for b in range(batch):
        for j in range(post):
            jumps[:] = 0.0
            for i in range(pre):
                slot = slots[b, i] + late[j, i]
                if slots[b, i] < steps and slot < steps:
                    jumps[slot] += weight[j, i]
            v = current = 0.0
            for t in range(steps):
                v = keep_v * v + gain * current
                current *= keep_i
                if v >= threshold:
                    first[b, j], slope[b, j] = t, current - rest
                    break
                current += jumps[t]
    return first, slope


@numba.njit
def _backward(into, slots, weight, late, first, slope, steps, dt, response, rise):  # type: ignore[no-untyped-def]
    into_before = np.zeros(slots.shape)
    into_weight, into_delay = np.zeros(weight.shape), np.zeros(weight.shape)
    for b in range(slots.shape[0]):
        for j in range(weight.shape[0]):
            if first[b, j] >= steps or into[b, j] == 0.0:
                continue
            into_v = -into[b, j] / (slope[b, j] * dt)
            for i in range(slots.shape[1]):
                since = first[b, j] - slots[b, i] - late[j, i]
                if slots[b, i] < steps and since > 0:
                    into_weight[j, i] += into_v * response[since]
                    into_arrival = -into_v * weight[j, i] * rise[since] * dt
                    into_delay[j, i] += into_arrival
                    into_before[b, i] += into_arrival
    return into_before, into_weight, into_delay
