"""A recurrent network of motif tensors that runs by itself, event by event.

``I[t, m, j] = sum_i sum_{tau < depth} taps[j, i, tau] s[t - 1 - tau, m, i]``, neurons as in
:class:`~delaykit_motifs.dynamics.Dynamics`. A spike adds its block of ``depth * neurons`` numbers to a ring of the
``depth`` currents to come, so a run costs ``spikes * depth * neurons`` and remembers ``depth * neurons`` a pattern.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from delaykit import checks
from delaykit.errors import ShapeError
from delaykit.functional.compiled import compiled, in_threads
from delaykit.functional.dispatch import resolve
from delaykit_motifs.dynamics import Dynamics
from delaykit_motifs.noise import check_mute
from delaykit_motifs.operators import bank_of


class Run(NamedTuple):
    """What a free run gives.

    Args:
        spikes: bool ``(time, pattern, neuron)``, clamped steps included.
        stopped: int64 ``(pattern,)``: step after which a runaway network was stopped and left silent, else ``time``.
    """

    spikes: Tensor
    stopped: Tensor


@checks.annotated
@torch.no_grad()
def free_run(
    taps: Tensor,
    drive: Tensor,
    dynamics: Dynamics,
    clamp: int = 0,
    mute: Tensor | None = None,
    runaway: float = 1.0,
) -> Run:
    """Let a network with recurrent taps run.

    Args:
        taps: ``(neuron, neuron, depth)``: (post, pre, delay). A spike arrives ``tau + 1`` steps later.
        drive: spikes forced from outside, ``(time, pattern, neuron)``. In the first ``clamp`` steps the network fires
            exactly these and membranes stay 0; later ones are added to its own (logical or).
        dynamics: threshold, leak and reset.
        clamp: number of clamped steps.
        mute: bool ``(neuron,)``, True where a neuron never fires; None: none.
        runaway: a pattern whose network has fired more than ``runaway * time * neurons`` spikes is stopped.

    Returns:
        Spikes, and where runaways were stopped.

    Raises:
        ShapeError: taps that are not square or drive that does not fit.

    Example:
        >>> taps = torch.zeros(2, 2, 2)
        >>> taps[1, 0, 1] = taps[0, 1, 0] = 1.0  # 0 -> 1 takes two steps, 1 -> 0 takes one
        >>> drive = torch.zeros(6, 1, 2, dtype=torch.bool)
        >>> drive[0, 0, 0] = True
        >>> free_run(taps, drive, Dynamics(), clamp=1).spikes[:, 0].int().tolist()
        [[1, 0], [0, 0], [0, 1], [1, 0], [0, 0], [0, 1]]
    """
    neurons = taps.shape[0] if taps.dim() == 3 else -1
    if taps.dim() != 3 or taps.shape[1] != neurons or drive.dim() != 3 or drive.shape[2] != neurons:
        found = f"taps {tuple(taps.shape)} and drive {tuple(drive.shape)}"
        raise ShapeError("free_run", found, "(neuron, neuron, depth) and (time, pattern, neuron)", "match the neurons")
    check_mute("free_run mute", mute, neurons)
    checks.number("free_run runaway", runaway, least=0)
    if mute is None:
        mute = torch.zeros(neurons, dtype=torch.bool, device=taps.device)
    most = int(runaway * drive.shape[0] * neurons)
    run = resolve("motifs_free_run", taps.device)
    bank = bank_of(taps.detach())
    bank = bank if bank.dtype == torch.float64 else bank.float()
    return Run(*run(bank, (drive != 0).to(taps.device), dynamics, clamp, mute, most))


def portable_free_run(
    bank: Tensor, drive: Tensor, dynamics: Dynamics, clamp: int, mute: Tensor, most: int
) -> tuple[Tensor, Tensor]:
    """Run all patterns side by side, one step after the other; for every device."""
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


def compiled_free_run(
    bank: Tensor, drive: Tensor, dynamics: Dynamics, clamp: int, mute: Tensor, most: int
) -> tuple[Tensor, Tensor]:
    """Run each pattern by itself, in threads."""
    (time, patterns, neurons), depth = drive.shape, bank.shape[1]
    spikes, stopped = torch.zeros_like(drive, memory_format=torch.contiguous_format), torch.full((patterns,), time)
    blocks = bank.view(neurons, depth * neurons).numpy()
    number = blocks.dtype.type
    given = (
        blocks,
        drive.contiguous().view(torch.uint8).numpy(),
        number(dynamics.theta),
        number(dynamics.beta),
        dynamics.reset == "hard",
        clamp,
        mute.numpy(),
        most,
        spikes.view(torch.uint8).numpy(),
        stopped.numpy(),
    )
    # The number of spikes is not known beforehand; a thread pays off for any real pattern.
    in_threads(lambda first, last: _run(*given, first, last), patterns, drive.numel() * depth)
    return spikes, stopped


@compiled()
def _run(bank, drive, theta, beta, hard, clamp, mute, most, spikes, stopped, first, last):  # type: ignore[no-untyped-def]
    """Keep a ring of the ``depth`` rows of currents to come; a spike's block is added in two contiguous parts."""
    time, _, neurons = drive.shape
    size = bank.shape[1]
    depth = size // neurons
    ring, u = np.zeros(size, bank.dtype), np.zeros(neurons, bank.dtype)
    fired, before = np.zeros(neurons, np.uint8), np.zeros(neurons, np.uint8)
    for m in range(first, last):
        ring[:] = 0
        u[:] = 0
        before[:] = 0
        total = 0
        for t in range(time):
            row = (t % depth) * neurons
            for j in range(neurons):
                if t < clamp:
                    fired[j] = drive[t, m, j]
                else:
                    rest = beta * u[j] - theta * before[j]
                    if hard:
                        rest = beta * u[j] * (1 - before[j])
                    u[j] = rest + ring[row + j]
                    fired[j] = u[j] >= theta or drive[t, m, j] != 0
                ring[row + j] = 0
            after = row + neurons  # row of the next step: tau = 0 arrives there
            for j in range(neurons):
                if mute[j]:
                    fired[j] = 0
                before[j] = fired[j] if t >= clamp else 0
                if fired[j]:
                    spikes[t, m, j] = 1
                    total += t >= clamp
                    for k in range(size - after):
                        ring[after + k] += bank[j, k]
                    for k in range(after):
                        ring[k] += bank[j, size - after + k]
            if total > most:
                stopped[m] = t
                break
