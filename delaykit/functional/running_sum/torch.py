"""Running sums in plain torch, for every device: backend ``torch``."""

from __future__ import annotations

import torch
from torch import Tensor


def running_sum(x: Tensor, decay: Tensor | None = None, reverse: bool = False) -> Tensor:
    """Accumulate over time: ``y[t] = decay y[t - 1] + x[t]``; ``reverse`` runs from the last step to the first.

    Args:
        x: ``(time, ...)``.
        decay: broadcasts with ``x[0]``; None: 1.
        reverse: ``y[t] = decay y[t + 1] + x[t]`` instead.
    """
    if decay is None:
        return x.flip(0).cumsum(0).flip(0) if reverse else x.cumsum(0)
    out = x.clone(memory_format=torch.contiguous_format)
    steps = range(x.shape[0] - 2, -1, -1) if reverse else range(1, x.shape[0])
    for step in steps:
        before = out[step + 1] if reverse else out[step - 1]
        out[step] += decay * before
    return out
