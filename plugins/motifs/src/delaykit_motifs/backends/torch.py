"""The operators in plain torch, for every device: one matrix product for each delay; backend ``torch``.

Layouts: spikes and currents ``(time, batch, neuron)``, bank ``(pre, depth, post)``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from delaykit_motifs.dynamics import MotifDynamics


def tapped_linear(x: Tensor, bank: Tensor) -> Tensor:
    """Filter: ``y[t, b, j] = sum_{i, tau} bank[i, tau, j] x[t - tau, b, i]``."""
    time, batch, pre = x.shape
    out = x.new_zeros(time * batch, bank.shape[2])
    rows = x.reshape(time * batch, pre)
    for tau in range(min(bank.shape[1], time)):
        late = tau * batch
        out[late:].addmm_(rows[: len(rows) - late], bank[:, tau])
    return out.view(time, batch, out.shape[1])


def tapped_adjoint(y: Tensor, bank: Tensor) -> Tensor:
    """Filter backwards in time: ``x[t, b, i] = sum_{j, tau} bank[i, tau, j] y[t + tau, b, j]``."""
    time, batch, post = y.shape
    out = y.new_zeros(time * batch, bank.shape[0])
    rows = y.reshape(time * batch, post)
    for tau in range(min(bank.shape[1], time)):
        late = tau * batch
        out[: len(rows) - late].addmm_(rows[late:], bank[:, tau].t())
    return out.view(time, batch, out.shape[1])


def tapped_correlation(x: Tensor, y: Tensor, depth: int) -> Tensor:
    """Correlate: ``bank[i, tau, j] = sum_{t, b} x[t - tau, b, i] y[t, b, j]``."""
    time, batch, pre = x.shape
    out = x.new_zeros(pre, depth, y.shape[2])
    source, target = (z.reshape(time * batch, z.shape[2]) for z in (x, y))
    for tau in range(min(depth, time)):
        late = tau * batch
        torch.mm(source[: len(source) - late].t(), target[late:], out=out[:, tau])
    return out


def window_read(rows: Tensor, row: int, bank: Tensor) -> Tensor:
    """Give one step from a recording: ``y[c, j] = sum_{i, tau} bank[i, tau, j] rows[i, row - tau, c]``.

    Args:
        rows: ``(pre, time, chunk)``.
        row: the current step, at least ``depth - 1``.
        bank: ``(pre, depth, post)``.
    """
    depth = bank.shape[1]
    window = rows[:, row - depth + 1 : row + 1].flip(1).flatten(0, 1)
    return window.t() @ bank.flatten(0, 1)


def free_run(
    bank: Tensor, drive: Tensor, dynamics: MotifDynamics, clamp: int, mute: Tensor, most: int
) -> tuple[Tensor, Tensor]:
    """Run all patterns of a network side by side, one step after the other.

    Args:
        bank: ``(neuron, depth, neuron)``; a spike arrives ``tau + 1`` steps later.
        drive: bool ``(time, pattern, neuron)``, spikes forced from outside.
        dynamics: the neurons.
        clamp: number of first steps in which exactly these spikes are fired.
        mute: bool ``(neuron,)``, who never fires.
        most: spikes after which a pattern is stopped.

    Returns:
        Spikes, as ``drive``, and the step after which each pattern was stopped, int64 ``(pattern,)``.
    """
    (time, patterns, neurons), depth = drive.shape, bank.shape[1]
    coming, u = bank.new_zeros(patterns, depth, neurons), bank.new_zeros(patterns, neurons)
    spikes, nothing = torch.zeros_like(drive), drive.new_zeros(patterns, neurons)
    total = torch.zeros(patterns, dtype=torch.int64, device=bank.device)
    stopped, before = torch.full_like(total, time), nothing
    for t in range(time):
        if t < clamp:
            fired = drive[t] & ~mute
        else:
            hard = dynamics.reset == "hard"
            rest = dynamics.beta * u * ~before if hard else dynamics.beta * u - dynamics.theta * before
            u = rest + coming[:, 0]
            fired = ((u >= dynamics.theta) | drive[t]) & ~mute & (stopped == time).unsqueeze(1)
            total += fired.sum(1)
            stopped = torch.where((total > most) & (stopped == time), t, stopped)
        before = nothing if t < clamp else fired
        coming = torch.cat([coming[:, 1:], torch.zeros_like(coming[:, :1])], 1)
        pattern, neuron = fired.nonzero(as_tuple=True)
        coming.index_add_(0, pattern, bank[neuron])
        spikes[t] = fired
    return spikes, stopped
