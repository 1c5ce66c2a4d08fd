"""Keep delays and spreads exact, whatever precision the model runs in."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from delaykit.precision import keep_single


def keep_exact(module: nn.Module, cast: Callable[[], object]) -> None:
    """Run a cast or move of ``module``; its ``sigma`` stays float64 and its parameters at least float32.

    An annealed spread of 0.0592 in float32 would
    move every published number by 1e-9.
    """
    sigma = module.sigma
    keep_single(module, cast)
    after = module.sigma
    module.sigma = after.double() if sigma.is_meta or after.is_meta else sigma.to(after.device)  # type: ignore
