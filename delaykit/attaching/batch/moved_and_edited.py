"""Rows of a membrane that changed places and were edited in one go: looked for where an edit in place is no reading."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

NODES = 64  # of a graph between two steps that are looked at
ROWS = 1 << 10  # of more, pairs are not compared
FEW = 4  # numbers a row, below which many a row is a multiple of another


def moved_and_edited(before: Tensor, now: Tensor) -> bool:
    """Tell whether a row is another one of before, scaled and shifted, and not its own behind an edit.

    Its own it is where some number of it is unchanged, or where all keep their order, as they do when they are scaled,
    shifted or clamped. An edit at random is no multiple of another row.

    Args:
        before: (batch, ...), what was left.
        now: the same, what is there.

    Example:
        >>> before = torch.tensor([[0.1, 0.7, 0.3, 0.2], [0.5, 0.2, 0.9, 0.4]])
        >>> moved_and_edited(before, 0.9 * before[[1, 0]] + 0.1), moved_and_edited(before, 0.9 * before.clamp(max=0.5))
        (True, False)
    """
    if before.shape != now.shape or before.dim() < 2 or not 1 < len(before) <= ROWS:
        return False
    one, two = (rows.detach().flatten(1).double() for rows in (before, now))
    if one.shape[1] < FEW:
        return False
    kept = ((one == two) & (one != 0)).any(1)
    in_order = two.gather(1, one.argsort(dim=1, stable=True)).diff(dim=1).ge(0).all(1)
    levels = two.sort(1).values.diff(dim=1).ne(0).sum(1)  # two of them are alike in many a row
    suspect = ~kept & ~in_order & (levels > 1)
    if not bool(suspect.any()):
        return False
    one, two = (rows - rows.mean(1, keepdim=True) for rows in (one, two[suspect]))
    one, two = (torch.nn.functional.normalize(rows, dim=1) for rows in (one, two))
    short = 64 * torch.finfo(now.dtype).eps if now.dtype.is_floating_point else 0.0
    near = (two @ one.T > 1 - 1e-6).nonzero()  # the pairs that are worth a closer look
    return bool(((two[near[:, 0]] - one[near[:, 1]]).norm(dim=1) < short).any())


def taken_by_row(now: Tensor, left: Tensor) -> bool:
    """Tell by the graph whether a membrane was made by indexing the rows of the one that was left.

    Example:
        >>> left = torch.ones(2, 1, requires_grad=True) * 2
        >>> taken_by_row(0.9 * left[[1, 0]], left), taken_by_row(0.9 * left, left), taken_by_row(left[:, [0]] + 1, left)
        (True, False, False)
    """
    end = left.grad_fn
    if end is None or now.grad_fn is None:
        return False
    return any(_moves_rows(node) and end in _nodes(node) for node in _nodes(now.grad_fn, end))


def _nodes(start: Any, end: Any = None) -> list[Any]:
    found, late = [start], [start]
    while late and len(found) < NODES:
        node = late.pop()
        if node is not end:
            fresh = [one for one, _ in node.next_functions if one is not None and one not in found]
            found += fresh
            late += fresh
    return found


def _moves_rows(node: Any) -> bool:
    name = node.name()
    if name.startswith("IndexBackward"):
        rows = node._saved_indices[0]
        if rows is None or rows.dtype in (torch.bool, torch.uint8):
            return rows is not None and not bool(rows.all())
        return not torch.equal(rows.flatten(), torch.arange(rows.numel(), device=rows.device))
    if name.startswith(("IndexSelectBackward", "GatherBackward")):
        return bool(node._saved_dim == 0)
    return name.startswith(("FlipBackward", "RollBackward")) and 0 in node._saved_dims
