"""A recurrent network of motif tensors that runs by itself, event by event.

``I[t, m, j] = sum_i sum_{tau < depth} taps[j, i, tau] s[t - 1 - tau, m, i]``, neurons as in
:class:`~delaykit_motifs.dynamics.MotifDynamics`. A spike adds its block of ``depth * neurons`` numbers to a ring of the
``depth`` currents to come, so a run costs ``spikes * depth * neurons`` and remembers ``depth * neurons`` a pattern.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from delaykit import checks
from delaykit.errors import ShapeError
from delaykit.functional.dispatch import implementation_of
from delaykit_motifs.dynamics import MotifDynamics
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
    dynamics: MotifDynamics,
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
        >>> free_run(taps, drive, MotifDynamics(), clamp=1).spikes[:, 0].int().tolist()
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
    run = implementation_of("motifs_free_run", taps.device)
    bank = bank_of(taps.detach())
    bank = bank if bank.dtype == torch.float64 else bank.float()
    return Run(*run(bank, (drive != 0).to(taps.device), dynamics, clamp, mute, most))
