"""The judge: every sum written out, one pair of neurons, one delay and one step at a time; backend ``reference``."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from delaykit_motifs.dynamics import MotifDynamics


def tapped_linear(x: Tensor, bank: Tensor) -> Tensor:
    """Filter; see :func:`delaykit_motifs.backends.torch.tapped_linear`."""
    pre, depth, post = bank.shape
    out = x.new_zeros(*x.shape[:2], post)
    for t, i, tau, j in itertools.product(*map(range, (len(x), pre, depth, post))):
        if tau <= t:
            out[t, :, j] += bank[i, tau, j] * x[t - tau, :, i]
    return out


def tapped_adjoint(y: Tensor, bank: Tensor) -> Tensor:
    """Filter backwards; see :func:`delaykit_motifs.backends.torch.tapped_adjoint`."""
    pre, depth, post = bank.shape
    out = y.new_zeros(*y.shape[:2], pre)
    for t, i, tau, j in itertools.product(*map(range, (len(y), pre, depth, post))):
        if t + tau < len(y):
            out[t, :, i] += bank[i, tau, j] * y[t + tau, :, j]
    return out


def tapped_correlation(x: Tensor, y: Tensor, depth: int) -> Tensor:
    """Correlate; see :func:`delaykit_motifs.backends.torch.tapped_correlation`."""
    time, _, pre = x.shape
    post = y.shape[2]
    out = x.new_zeros(pre, depth, post)
    for t, i, tau, j in itertools.product(*map(range, (time, pre, depth, post))):
        if tau <= t:
            out[i, tau, j] += (x[t - tau, :, i] * y[t, :, j]).sum()
    return out


def window_read(rows: Tensor, row: int, bank: Tensor) -> Tensor:
    """Give one step; see :func:`delaykit_motifs.backends.torch.window_read`."""
    pre, depth, post = bank.shape
    out = rows.new_zeros(rows.shape[2], post)
    for i, tau, j in itertools.product(*map(range, (pre, depth, post))):
        out[:, j] += bank[i, tau, j] * rows[i, row - tau]
    return out


def free_run(
    bank: Tensor, drive: Tensor, dynamics: MotifDynamics, clamp: int, mute: Tensor, most: int
) -> tuple[Tensor, Tensor]:
    """Run each pattern by itself; see :func:`delaykit_motifs.backends.torch.free_run`."""
    time, patterns, _ = drive.shape
    spikes, stopped = torch.zeros_like(drive), torch.full((patterns,), time, device=drive.device)
    for m in range(patterns):
        u, total = [0.0] * len(bank), 0
        for t in range(time):
            fires, u = _step(t, bank, drive[:, m], spikes[:, m], u, dynamics, clamp)
            spikes[t, m] = torch.tensor(fires, device=drive.device) & ~mute
            total += int(spikes[t, m].sum()) if t >= clamp else 0
            if total > most:
                stopped[m] = t
                break
    return spikes, stopped


def _step(
    t: int, bank: Tensor, drive: Tensor, spikes: Tensor, u: list[float], dynamics: MotifDynamics, clamp: int
) -> tuple[list[bool], list[float]]:
    """Say which neurons fire at ``t``, and their membranes, from the ``spikes (time, neuron)`` before it."""
    forced = [bool(one) for one in drive[t]]
    if t < clamp:
        return forced, u
    fires, after = [], []
    for j, before in enumerate(u):
        fired = t > clamp and bool(spikes[t - 1, j])
        rest = dynamics.beta * before * (not fired)
        if dynamics.reset == "subtractive":
            rest = dynamics.beta * before - dynamics.theta * fired
        pairs = itertools.product(range(len(bank)), range(min(bank.shape[1], t)))
        arrived = sum(float(bank[i, tau, j]) for i, tau in pairs if spikes[t - 1 - tau, i])
        after.append(rest + arrived)
        fires.append(forced[j] or after[j] >= dynamics.theta)
    return fires, after
