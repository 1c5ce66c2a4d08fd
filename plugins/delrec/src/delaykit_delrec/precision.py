"""Keep delays and spreads exact, whatever precision the model runs in."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn


def keep_exact(module: nn.Module, cast: Callable[[], object]) -> None:
    """Run a cast or move of ``module``; its ``sigma`` stays float64 and its parameters at least float32.

    A half-precision delay cannot count steps: 2049 is not a float16. An annealed spread of 0.0592 in float32 would
    move every published number by 1e-9.
    """
    sigma, before = module.sigma, [values.detach().clone() for values in module.parameters(recurse=False)]
    cast()
    after = module.sigma
    module.sigma = after.double() if sigma.is_meta or after.is_meta else sigma.to(after.device)  # type: ignore
    for values, exact in zip(module.parameters(recurse=False), before, strict=True):
        if values.dtype in (torch.float16, torch.bfloat16):
            values.data = exact.to(values.device).float()
