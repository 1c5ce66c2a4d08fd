"""The judge of a leaky neuron's step: its equation as it stands, and plain autograd."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def leaky_step(drive: Tensor, membrane: Tensor, decay: Any, threshold: Any, reset: str) -> tuple[Tensor, Tensor]:
    """Advance by one step; see :func:`delaykit.functional.leaky_step.torch.leaky_step`."""
    fired = membrane.detach() - threshold > 0
    kept = torch.where(fired, torch.zeros_like(membrane), membrane) if reset == "zero" else membrane
    after = kept * decay + drive
    if reset == "subtract":
        after = torch.where(fired, after - threshold, after)
    return after, fired.to(drive.dtype)
