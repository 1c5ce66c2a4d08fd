"""What an adapter finds of the membrane around a step of the example: whether it can be what the step left behind."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from delaykit.attaching.batch.tensors import tensors_in
from delaykit.functional.engine_base import version_of


def odd_membrane(membrane: Tensor | None, passed: Tensor | None, output: Any) -> str:
    """Say what is wrong with the membrane behind a step, or with the one that its call passes; "" where nothing is."""
    if membrane is None:
        return ""
    fired = next(iter(tensors_in(output)), membrane)
    if membrane.is_complex() or membrane.layout is not torch.strided or (membrane.is_meta and not fired.is_meta):
        kind = "complex" if membrane.is_complex() else "meta" if membrane.is_meta else "sparse"
        return f"a {kind} tensor behind a step"
    if passed is None or not passed.numel():  # rest
        return ""
    pairs = zip(reversed(passed.shape), reversed(membrane.shape), strict=False)
    if passed.dim() <= membrane.dim() and all(a in (1, b) for a, b in pairs):
        return ""
    return f"a membrane of shape {tuple(passed.shape)}, not {tuple(membrane.shape)}, in a call"


def is_untouched(membrane: Tensor | None, before: tuple[int | None, Tensor] | None, args: tuple[Any, ...]) -> bool:
    """Tell whether a step, of an input that is not zero, left a membrane alone, by its version and by its values."""
    if membrane is None or before is None or not args or not isinstance(args[0], Tensor) or not bool(args[0].any()):
        return False
    return version_of(membrane) == before[0] and torch.equal(membrane, before[1])
