"""Running sums for the CPU, by Numba: backend ``cpu``."""

from __future__ import annotations

import torch
from torch import Tensor

from delaykit.functional.compiled import arrays, compiled


def running_sum(x: Tensor, decay: Tensor | None = None, reverse: bool = False) -> Tensor:
    """Accumulate over time; see :func:`delaykit.functional.running_sum.torch.running_sum`."""
    out = x.clone(memory_format=torch.contiguous_format)
    if x.shape[0] < 2 or not x.numel():
        return out
    factor = torch.ones((), dtype=x.dtype) if decay is None else decay
    rows = out.view(x.shape[0], -1).numpy()
    _accumulate(rows[::-1] if reverse else rows, *arrays(factor.expand(x.shape[1:]).reshape(-1)))
    return out


@compiled()
def _accumulate(rows, decay):  # type: ignore[no-untyped-def]
    """Run ``rows[t] += decay rows[t - 1]`` in place."""
    for t in range(1, rows.shape[0]):
        before, now = rows[t - 1], rows[t]
        for n in range(now.shape[0]):
            now[n] += decay[n] * before[n]
