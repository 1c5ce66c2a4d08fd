"""Which rows of a connection are which rows of a neuron, seen in the example.

What a connection or a neuron returns there goes on in several copies, too, in each of which some rows are not a
number: by the bits of their places, so that no two rows are marked alike. Every operation is run on the copies as well,
and where they arrive it is seen which rows hear which. Only the first calls of each module are watched, and never a
neuron's inside.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

from delaykit.attaching.batch.tensors import tensors_in, with_tensors
from delaykit.attaching.clocks import RowLayout

CALLS = 4  # of each module that are watched
LARGE = 2**25  # numbers in all copies of one tensor; of larger ones fewer rows are told apart
Source = tuple[str, str, int, int]  # "site" or "state", path, the dimension that is marked, its size


class RowMarks:
    """Marks rows where they leave a module, and reads the marks where they arrive.

    Attributes:
        found: what was seen, by kind and path of the module that they left, path of the other, and both dimensions.
    """

    def __init__(self) -> None:
        self._known = WeakTensorKeyDictionary()
        self._codes = functools.cache(codes)  # of this plan alone: they are of its device, and of its mode
        self._paused = 0
        self.found: dict[tuple[str, str, str, int, int], set[RowLayout]] = {}

    def pause(self, by: int) -> None:
        """Begin (1) or end (-1) what is not watched."""
        self._paused += by

    def begin(self, kind: str, path: str, values: Any, dims: int) -> None:
        """Mark the rows of what a module has just returned, in each of its first ``dims`` dimensions, two at most."""
        if self._paused:
            return
        self.forget(values)
        for leaf in tensors_in(values):
            if not leaf.is_floating_point() or not leaf.numel():
                continue
            for dim in range(min(dims, leaf.dim(), 2)):
                size = leaf.shape[dim]
                marks = self._codes(size, leaf.device)[: max(2, LARGE // leaf.numel())]
                column = (-1, *(1,) * (leaf.dim() - 1 - dim))
                copies = [leaf.detach().masked_fill(mark.view(column), torch.nan) for mark in marks]
                self._known.setdefault(leaf, {})[kind, path, dim, size] = copies

    def forget(self, values: Any) -> None:
        """Know nothing of these tensors."""
        for tensor in tensors_in(values):
            self._known.pop(tensor, None)

    def ahead(self, func: Any, args: Any, kwargs: Any) -> dict[Source, list[Any]]:
        """Run an operation on the copies, before it runs itself: it may write into what it is given."""
        if self._paused or not len(self._known) or torch.Tag.nondeterministic_seeded in func.tags:
            return {}
        leaves = [tensor for tensor in tensors_in((args, kwargs)) if tensor in self._known]
        if not leaves:
            return {}
        found = {source: len(copies) for leaf in leaves for source, copies in self._known[leaf].items()}
        if "batch_norm" in func.overloadpacket.__name__:  # adds to all rows, and moves none
            return {source: [(copy,) for copy in self._known[leaves[0]].get(source, [])] for source in found}
        out = {}
        for source, count in found.items():
            try:
                out[source] = [self._on_copy(func, args, kwargs, source, k) for k in range(count)]
            except Exception:  # noqa: S112 - whatever an operation does not do to numbers that are none
                continue
        return out

    def _on_copy(self, func: Any, args: Any, kwargs: Any, source: Source, number: int) -> Any:
        writes = func._schema.is_mutable

        def put(tensor: Tensor) -> Tensor:
            copies = self._known.get(tensor, {}).get(source)
            if copies is not None:
                return copies[number]
            return tensor.clone() if writes else tensor

        args, kwargs = with_tensors(put, (args, kwargs or {}))
        return func(*args, **kwargs)

    def behind(self, ahead: dict[Source, list[Any]], output: Any) -> None:
        """Note what an operation gave for the copies; what are no real numbers, as of a comparison, tell nothing."""
        leaves = tree_leaves(output) if ahead else []
        for source, copies in ahead.items():
            for place, leaf in enumerate(leaves):
                marked = [parts[place] for copy in copies if len(parts := tree_leaves(copy)) > place]
                tensors = all(isinstance(one, Tensor) for one in (leaf, *marked)) and leaf.is_floating_point()
                if marked and tensors and all(one.shape == leaf.shape for one in marked):
                    self._known.setdefault(leaf, {})[source] = marked

    def arrive(self, kind: str, path: str, values: Any, dims: int) -> None:
        """Read the marks of what a module is given, which left one of that kind, in its first ``dims`` dimensions."""
        for leaf in tensors_in(values):
            for source, copies in self._known.get(leaf, {}).items():
                for dim in range(max(1, min(dims, leaf.dim(), 2))) if source[0] == kind else ():
                    layout = _layout(self._codes(source[3], copies[0].device), copies, dim)
                    if layout is not None:
                        self.found.setdefault((kind, source[1], path, source[2], dim), set()).add(layout)

    def layout(self, kind: str, source: str, path: str, left: int, arrived: int) -> set[RowLayout]:
        """Return how rows were seen to go from one module to another; empty: nobody saw it."""
        return self.found.get((kind, source, path, left, arrived), set())


def codes(size: int, device: torch.device | None = None) -> tuple[Tensor, ...]:
    """Return masks ``(size,)`` of which no two rows have the same, the first half first.

    Args:
        size: number of rows.
        device: of the masks.

    Example:
        >>> [mask.tolist() for mask in codes(3)][:2]
        [[True, True, False], [False, False, True]]
    """
    rows = torch.arange(size, device=device)
    picks = [rows < (size + 1) // 2, *((rows >> bit) % 2 == 1 for bit in reversed(range((size - 1).bit_length())))]
    return tuple(mask for pick in picks for mask in (pick, ~pick) if bool(mask.any()))


def _layout(marks: Sequence[Tensor], copies: list[Tensor], dim: int) -> RowLayout | None:
    """Compare the rows that were marked with those that are no numbers here; None: none are."""
    size = len(marks[0])
    if copies[0].dim() == 1 and size == 1:  # its one dimension counts neurons
        return None
    reached = [copy.isnan().movedim(dim, 0).flatten(1).any(1) if copy.dim() > 1 else copy.isnan() for copy in copies]
    if not any(bool(rows.any()) for rows in reached):
        return None
    here = len(reached[0])
    if here == size:
        return "same" if _within(reached, marks) else "moved"
    if here > 1 and size % here == 0:
        return "grouped" if _within(reached, [mark.view(here, -1).any(1) for mark in marks]) else "moved"
    if size > 1 and here % size == 0:
        return "grouped" if _within(reached, [mark.repeat_interleave(here // size) for mark in marks]) else "moved"
    return "moved"


def _within(reached: list[Tensor], marks: Sequence[Tensor]) -> bool:
    return all(not bool((rows & ~mark).any()) for rows, mark in zip(reached, marks, strict=False))


def joined(seen: set[RowLayout]) -> RowLayout:
    """Say of several ways what is true of all of them; of none, that rows are where they were."""
    return next(iter(seen)) if len(seen) == 1 else "moved" if seen else "same"
