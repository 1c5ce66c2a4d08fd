r"""Neurons that fire at most once, by events: from spike times to spike times, with the exact gradient, without steps.

Where every neuron fires once, a spike train is one number, and the membrane is a sum over the spikes received,
``v(t) = sum_i w_i eps(t - t_i - d_i)`` with ``eps(u) = (e^{-u/tau_syn} - e^{-u/tau_mem}) / (1/tau_mem - 1/tau_syn)``.
Then ``dL/dv = -(dL/dt) / v'`` at the crossing, ``dL/dw_i = dL/dv eps(u_i)`` and ``dL/dd_i = dL/dt_i = -dL/dv w_i
eps'(u_i)``. ``exact_arrivals``, ``exact_rollout(once=True)`` and ``first_spike_times`` compute the same over whole
sequences, to second order in the step (``tests/test_spatial_single_spike.py`` compares them).
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

from delaykit_spatial.exact import ExactLIF


def single_spikes(
    times: Tensor, weight: Tensor, delay: Tensor, neuron: ExactLIF, steps: int, min_slope: float = 1e-3
) -> Tensor:
    """Return the only spike of each neuron, with its exact gradient.

    Args:
        times: spikes received, ``(batch, pre)``, in steps; ``steps`` or later for none.
        weight: ``(post, pre)``.
        delay: in steps, >= 0, broadcastable to the weight.
        neuron: its time constants, threshold, and the step that times and delays count in.
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
        arrays = [x.detach().double().contiguous().numpy() for x in (times, weight, delay)]
        numbers = (steps, neuron.dt, 1 / neuron.tau_syn, 1 / neuron.tau_mem)
        first, slope = _forward(*arrays, *numbers, neuron.threshold)
        ctx.given, ctx.dtype = (*arrays, first, np.maximum(slope, min_slope), *numbers), weight.dtype
        return torch.from_numpy(first).to(times.dtype)

    @staticmethod
    def backward(ctx: Any, into_times: Tensor) -> tuple[Tensor | None, ...]:
        grads = _backward(into_times.double().contiguous().numpy(), *ctx.given)
        before, weight, delay = (torch.from_numpy(grad) for grad in grads)
        return before.to(into_times.dtype), weight.to(ctx.dtype), delay.to(ctx.dtype), None, None, None


@numba.njit(error_model="numpy")
def _forward(times, weight, late, steps, dt, fast, slow, threshold):  # type: ignore[no-untyped-def]
    (batch, pre), post = times.shape, len(weight)
    first, slope = np.full((batch, post), steps + 1.0), np.ones((batch, post))
    rate = fast - slow
    for b in range(batch):
        for j in range(post):
            arrivals = times[b] + late[j]
            arrivals[times[b] >= steps] = np.inf
            order, v, i, now = np.argsort(arrivals), 0.0, 0.0, 0.0
            for n in range(pre + 1):
                until = min(arrivals[order[n]], steps) if n < pre else steps + 0.0
                span = (until - now) * dt
                # v(s) = a e^{-slow s} - c e^{-fast s}, with one summit, before which lies the crossing if there is one
                c = i / rate
                a = v + c
                summit = span
                if a > 0 and c > 0:
                    summit = min(max(np.log(fast * c / (slow * a)) / rate, 0.0), span)
                if a * np.exp(-slow * summit) - c * np.exp(-fast * summit) >= threshold and summit > 0:
                    since, steep = 0.0, 1.0
                    for _ in range(60):  # v is concave up to the summit: Newton's rule comes from below
                        quick, long = c * np.exp(-fast * since), a * np.exp(-slow * since)
                        steep = fast * quick - slow * long
                        further = (threshold - long + quick) / steep
                        since += further
                        if not 1e-13 < further < span:
                            break
                    first[b, j], slope[b, j] = now + min(max(since, 0.0), summit) / dt, steep
                    break
                if n == pre or arrivals[order[n]] >= steps:
                    break
                v, i = a * np.exp(-slow * span) - c * np.exp(-fast * span), i * np.exp(-fast * span)
                i, now = i + weight[j, order[n]], until
    return first, slope


@numba.njit(error_model="numpy")
def _backward(into, times, weight, late, first, slope, steps, dt, fast, slow):  # type: ignore[no-untyped-def]
    into_before = np.zeros(times.shape)
    into_weight, into_delay = np.zeros(weight.shape), np.zeros(weight.shape)
    scale = 1 / (slow - fast)
    for b in range(times.shape[0]):
        for j in range(len(weight)):
            if first[b, j] >= steps or into[b, j] == 0.0:
                continue
            into_v = -into[b, j] / (slope[b, j] * dt)
            for i in range(times.shape[1]):
                since = (first[b, j] - times[b, i] - late[j, i]) * dt
                if times[b, i] < steps and since > 0:
                    quick, long = np.exp(-fast * since), np.exp(-slow * since)
                    into_weight[j, i] += into_v * (quick - long) * scale
                    into_arrival = -into_v * weight[j, i] * (slow * long - fast * quick) * scale * dt
                    into_delay[j, i] += into_arrival
                    into_before[b, i] += into_arrival
    return into_before, into_weight, into_delay
