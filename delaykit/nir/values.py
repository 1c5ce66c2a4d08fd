"""The package ``nir``, and the numbers that its nodes hold: there and finite, or an error that says what is missing."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from delaykit.errors import ConfigError

FIX = "mend the graph: a node that holds it computes nothing, or nonsense"


def nir_package() -> Any:
    """Return the package ``nir``.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import nir
    except ModuleNotFoundError as error:
        if error.name != "nir":
            raise
        fix = "pip install 'delaykit[nir]'"
        raise ConfigError("delaykit.nir", f"no package nir ({error})", "nir 1.0.8 or newer", fix) from None
    package: ModuleType = nir
    return package


def real(where: str, value: Any) -> Tensor:
    """Return what a node holds as a tensor of its own in float64.

    Args:
        where: the node and the name of the number, for the message.
        value: an array or a number.

    Raises:
        ConfigError: it is missing, empty, complex, no number at all, or not finite.
    """
    try:
        array = np.asarray(value)
        copy = np.array(array, dtype=np.float64) if array.dtype.kind in "fiub" else None
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise ConfigError(where, f"{type(value).__name__} ({error})", "an array of real numbers", FIX) from None
    if copy is None:
        found = "None" if value is None else f"values of type {array.dtype}"
        raise ConfigError(where, found, "an array of real numbers", FIX)
    if not copy.size:
        raise ConfigError(where, f"no number, shape {copy.shape}", "at least one", FIX)
    wrong = ~np.isfinite(copy)
    if wrong.any():
        found = f"{copy[wrong][0]} ({int(wrong.sum())} of {copy.size} are not finite)"
        raise ConfigError(where, found, "finite numbers", FIX)
    return torch.from_numpy(copy)


def whole(where: str, value: Any, least: int, many: int) -> tuple[int, ...]:
    """Return whole numbers, one a dimension of space.

    Args:
        where: the node and the name of the number, for the message.
        value: one number for all dimensions, or one each.
        least: the smallest that is allowed.
        many: how many dimensions there are.

    Raises:
        ConfigError: they are not whole, too small or too many.
    """
    given = real(where, value).flatten()
    if given.numel() not in (1, many) or bool(((given != given.round()) | (given < least) | (given > 2**31)).any()):
        raise ConfigError(where, f"{given.tolist()}", f"one whole number >= {least}, or {many}", "correct the node")
    return tuple(int(n) for n in given.expand(many))
