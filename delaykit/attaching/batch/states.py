"""What became of a state that the caller carries, read off its values as with a membrane.

A state is a NamedTuple of tensors, maybe of further ones. What is written into them in place is seen by their version
counters and told from before by copies, as the counters do not say what was there.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree

from delaykit.attaching.batch.membranes import Change, compare


class LeftState:
    """A state as the library returned it.

    Args:
        state: its NamedTuple, without histories.
        tensors: the parts of it whose rows are the batch's.
    """

    def __init__(self, state: Any, tensors: list[Tensor]) -> None:
        self.state, self.tensors = state, tensors
        if torch.compiler.is_compiling():
            _uncompiled_keep(self)
        else:
            self.keep()

    def keep(self) -> None:
        """Remember the values as they are now."""
        self.values = [tensor.detach().clone() for tensor in self.tensors]
        self._versions = [_version(tensor) for tensor in self.tensors]

    def written(self) -> bool:
        """Tell whether somebody wrote into it since; tensors of inference mode do not count, so their values tell."""
        if torch.compiler.is_compiling():
            return _uncompiled_written(self)
        for tensor, version, values in zip(self.tensors, self._versions, self.values, strict=True):
            if version is None:
                if not torch.equal(tensor, values):
                    return True
            elif tensor._version != version:
                return True
        return False


def _version(tensor: Tensor) -> int | None:
    return None if tensor.is_inference() else tensor._version


@torch.compiler.disable
def _uncompiled_keep(left: LeftState) -> None:
    left.keep()


@torch.compiler.disable
def _uncompiled_written(left: LeftState) -> bool:
    return left.written()


def tensors_of(state: Any) -> list[Tensor]:
    """List the tensors of a state, those of states inside it included."""
    leaves: list[Tensor] = []
    for entry in state:
        if isinstance(entry, Tensor):
            leaves.append(entry)
        elif entry is not None:
            leaves += [leaf for leaf in _pytree.tree_leaves(entry) if isinstance(leaf, Tensor)]
    return leaves


def read_values(before: list[Tensor], now: list[Tensor]) -> list[int | None] | None:
    """Read off the values what became of the rows of a state; None where nobody can tell."""
    pairs = list(zip(before, now, strict=False))
    if any(a.dim() == 0 or b.dim() == 0 or a.shape[1:] != b.shape[1:] for a, b in pairs):
        return None
    joined = [torch.cat([pair[k].detach().flatten(1).double() for pair in pairs], 1) for k in (0, 1)]
    change: Change = compare(joined[0], joined[1])
    batch = len(joined[0])
    if change.kind in ("same", "edit"):
        return list(range(batch))
    if change.kind == "resized":
        return [row if row < batch else None for row in range(change.batch)]
    if change.kind == "reset":
        return [None] * len(joined[1])
    if change.kind == "rows" and change.rows is not None:
        return [None if gone else row for row, gone in enumerate(change.rows.tolist())]
    return None
