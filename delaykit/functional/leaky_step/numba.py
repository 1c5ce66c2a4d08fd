"""A leaky neuron's step for the CPU, in one loop by Numba: backend ``cpu``."""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from delaykit.functional.compiled import compiled

_ONE, _NONE = np.float32(1), np.float32(0)
_SWITCHES = {"subtract": (_ONE, _NONE), "zero": (_NONE, _ONE), "none": (_NONE, _NONE)}


def leaky_step(drive: Tensor, membrane: Tensor, decay: float, threshold: float, reset: str) -> tuple[Tensor, Tensor]:
    """Advance by one step; see :func:`delaykit.functional.leaky_step.torch.leaky_step`. Inputs are contiguous."""
    after, resets = torch.empty_like(drive), torch.empty_like(drive)
    flat = [x.numpy().reshape(-1) for x in (drive.detach(), membrane.detach(), after, resets)]
    _advance(*flat, decay, threshold, *_SWITCHES[reset], _ONE, _NONE)
    return after, resets


@compiled(())
def _advance(drive, membrane, after, resets, decay, threshold, subtracts, wipes, one, none):
    """Run one step of every neuron; ``subtracts`` and ``wipes`` are 1 or 0, which changes no bit of the others."""
    for n in range(len(drive)):
        old = membrane[n]
        reset = one if old - threshold > none else none
        after[n] = decay * ((one - wipes * reset) * old) + drive[n] - subtracts * reset * threshold
        resets[n] = reset
