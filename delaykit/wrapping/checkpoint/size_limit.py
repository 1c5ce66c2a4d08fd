"""Build what a file asks for, but no more than the file itself can fill: a number in it must not take all memory."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

from delaykit.errors import CheckpointError

ALWAYS = 2**16  # elements that any component may make


class _Bounded(TorchDispatchMode):
    """Refuse a size before a tensor of that size is made."""

    def __init__(self, most: int, where: str) -> None:
        super().__init__()
        self.most, self.where = most, where

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = [*args, *(kwargs or {}).values()]
        sizes = [math.prod(size) for size in given if _is_size(size)]
        if not sizes:  # arange(n), eye(n); beside a size a number is a value, as the bound of a random one
            sizes = [math.prod(n for n in given if isinstance(n, (int, float)) and math.isfinite(n) and n > 1)]
        if max(sizes) > self.most:
            found = f"a component of {max(sizes):.3g} values ({func})"
            expected = f"at most {self.most}, as there are tensors for in the file"
            raise CheckpointError(self.where, found, expected, "use an earlier checkpoint")
        return func(*args, **kwargs or {})


@contextlib.contextmanager
def bounded(elements: int, where: str) -> Iterator[None]:
    """Refuse inside the block what would make a tensor much larger than ``elements``.

    Args:
        elements: number of values there are, of all tensors together.
        where: name for messages.

    Raises:
        CheckpointError: a tensor was about to be made that nothing in the file could fill.

    Example:
        >>> import torch
        >>> with bounded(100, "delays"):
        ...     _ = torch.zeros(1_000_000_000)
        Traceback (most recent call last):
        delaykit.errors.CheckpointError: delays: found a component of 1e+09 values (aten.zeros.default); ...
    """
    with _Bounded(2 * elements + ALWAYS, where):
        yield


def _is_size(value: Any) -> bool:
    return isinstance(value, Sequence) and bool(value) and all(isinstance(n, int) for n in value)
