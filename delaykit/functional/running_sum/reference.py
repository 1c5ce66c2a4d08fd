"""The judge of running sums: one step after the other, and plain autograd."""

from __future__ import annotations

import torch
from torch import Tensor


def running_sum(x: Tensor, decay: Tensor | None = None, reverse: bool = False) -> Tensor:
    """Accumulate over time; see :func:`delaykit.functional.running_sum.torch.running_sum`."""
    if not len(x):
        return x.clone()
    steps = list(x.flip(0) if reverse else x)
    sums = [steps[0]]
    for step in steps[1:]:
        sums.append((sums[-1] if decay is None else decay * sums[-1]) + step)
    return torch.stack(sums[::-1] if reverse else sums)
