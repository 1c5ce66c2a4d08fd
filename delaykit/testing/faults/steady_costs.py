"""Something that is done over and over costs the same the thousandth time: memory that lives, numbers that are read."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

WARM, ALLOWED = 100, 2.0  # a recording grows in chunks: up to twice as much lives as is needed
MARGIN = 100  # objects that a first time leaves behind: caches, compiled code


class _Work(TorchDispatchMode):
    """Count the numbers that torch's operators are given."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.numbers += sum(leaf.numel() for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor))
        return func(*args, **(kwargs or {}))


def living() -> int:
    """Count the bytes of all tensors that live."""
    gc.collect()
    found = {}
    for one in gc.get_objects():
        if type(one) in (Tensor, torch.nn.Parameter) and one.layout is torch.strided:  # a compiler's have no numbers
            storage = one.untyped_storage()
            found[storage._cdata] = storage.nbytes()
    return sum(found.values())


def check_steady(act: Callable[[], Any], count: int) -> None:
    """Do something ``count`` times; raise where it takes more in the end than in the beginning.

    Args:
        act: one step, one piece or one sequence.
        count: how often; more than 100.

    Raises:
        AssertionError: memory that lives, the objects that Python knows, or the numbers that one act reads, have grown.

    Example:
        >>> check_steady(lambda: torch.ones(3).sum(), 200)
    """
    costs = []
    for several in (WARM, count - WARM):
        for _ in range(several):
            act()
        with _Work() as work:
            act()
        costs.append((work.numbers, living(), len(gc.get_objects())))
    (work_then, bytes_then, objects_then), (work_now, bytes_now, objects_now) = costs
    assert work_now <= ALLOWED * work_then, f"an act read {work_then} numbers at first, and {work_now} after {count}"
    assert bytes_now <= ALLOWED * bytes_then, f"{bytes_then} bytes lived at first, and {bytes_now} after {count}"
    grown = objects_now - objects_then
    assert grown < max(MARGIN, (count - WARM) / 2), f"{grown} objects more lived after {count}"
