"""Numbers that no half precision can hold, in models that are cast to it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn


def keep_single(module: nn.Module, cast: Callable[[], object], *buffers: str) -> None:
    """Run a cast or move of ``module``, after which its own parameters and some buffers are at least float32.

    A half-precision delay cannot count steps, 2049 is not a float16, and no half-precision decay is between 0.9995 and
    1. Where a cast would have rounded them, they keep the values that they had.

    Args:
        module: a delay or decay, whose ``_apply`` calls this.
        cast: what it would have done, ``lambda: super(Mine, self)._apply(fn, recurse)``.
        *buffers: names of buffers to keep, too; None may be in one.

    Example:
        >>> class Late(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.delay = nn.Parameter(torch.tensor(2049.0))
        ...     def _apply(self, fn, recurse=True):
        ...         keep_single(self, lambda: super(Late, self)._apply(fn, recurse))
        ...         return self
        >>> Late().half().delay.item()
        2049.0
    """
    kept = {name: getattr(module, name) for name in (*module._parameters, *buffers)}
    before = {name: values.detach().clone() for name, values in kept.items() if values is not None}
    cast()
    for name, exact in before.items():
        values = getattr(module, name)
        if values.dtype in (torch.float16, torch.bfloat16):
            values.data = exact.to(values.device).float()
