"""A spiking network in continuous time, event by event, and finite differences of it: the judge of exact gradients.

``i' = -i / tau_syn + sum w delta(t - t_arrival)``, ``v' = -v / tau_mem + i``; at v = 1 a spike, and v = 0.
Sources are numbered inputs first, then neurons; ``weight[neuron, source]`` and ``delay[neuron, source]`` in ms.
"""

from __future__ import annotations

import heapq
import math

import numpy as np
from scipy.optimize import brentq

TAU_SYN, TAU_MEM = 2.0, 10.0


def response(past):
    """Membrane ``past`` ms after a unit of current arrived."""
    return (np.exp(-past / TAU_SYN) - np.exp(-past / TAU_MEM)) / (1 / TAU_MEM - 1 / TAU_SYN)


def crossing(v, i, span):
    """First time in (0, span] at which a membrane reaches 1 from below, or infinity."""

    def above(past):
        return v * np.exp(-past / TAU_MEM) + i * response(past) - 1

    if span <= 0 or i <= 0:
        return math.inf
    peak = peak_of(v, i)
    end = min(span, peak)
    return brentq(above, 0.0, end, xtol=1e-15, rtol=1e-14) if above(end) >= 0 > above(0.0) else math.inf


def peak_of(v, i):
    """Time at which a membrane with positive current is highest, infinity if it only rises."""
    a = i / (1 / TAU_MEM - 1 / TAU_SYN)  # v(s) = a e^(-s / tau_syn) + (v - a) e^(-s / tau_mem)
    ratio = -(a / TAU_SYN) / ((v - a) / TAU_MEM) if v != a else math.inf
    if ratio <= 0 or not math.isfinite(ratio):
        return math.inf
    return max(0.0, math.log(ratio) / (1 / TAU_SYN - 1 / TAU_MEM))


def run(weight, delay, inputs, until):
    """Run a network from rest; return its spikes (time, neuron) and the membranes at ``until``."""
    neurons, sources = weight.shape
    first = sources - neurons
    v, i, now, spikes, count = np.zeros(neurons), np.zeros(neurons), 0.0, [], 0
    queue = []

    def send(source, at):
        nonlocal count
        for j in np.flatnonzero(weight[:, source]):
            count += 1
            heapq.heappush(queue, (at + delay[j, source], count, j, weight[j, source]))

    for source, at in inputs:
        send(source, at)
    while True:
        span = (min(queue[0][0], until) if queue else until) - now
        hits = [crossing(v[j], i[j], span) for j in range(neurons)]
        j, step = int(np.argmin(hits)), min(*hits, span)
        fires = hits[j] <= span
        v, i, now = v * math.exp(-step / TAU_MEM) + i * response(step), i * math.exp(-step / TAU_SYN), now + step
        if fires:
            v[j] = 0.0
            spikes.append((now, j))
            send(first + j, now)
        elif queue and queue[0][0] <= until:
            _, _, k, w = heapq.heappop(queue)
            i[k] += w
        else:
            return spikes, v


def slopes(weight, delay, inputs, until, coefficients, step=1e-6):
    """Finite differences of ``coefficients . v(until)`` by every weight and delay that is in use."""
    found = []
    for which in (0, 1):
        out = np.zeros_like(weight)
        for at in zip(*np.nonzero(weight), strict=True):
            ends = []
            for sign in (step, -step):
                changed = [weight.copy(), delay.copy()]
                changed[which][at] += sign
                ends.append(coefficients @ run(*changed, inputs, until)[1])
            out[at] = (ends[0] - ends[1]) / (2 * step)
        found.append(out)
    return found


def cosine(one, two):
    return float((one * two).sum() / math.sqrt((one**2).sum() * (two**2).sum()))


def grid(inputs, count, until, dt):
    """Input spikes on a grid of steps, ``(time, 1, source)``."""
    import torch

    out = torch.zeros(round(until / dt), 1, count, dtype=torch.float64)
    for source, at in inputs:
        if round(at / dt) < len(out):
            out[round(at / dt), 0, source] += 1
    return out
