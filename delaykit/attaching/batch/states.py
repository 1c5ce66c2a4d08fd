"""What became of a state that the caller carries, read off its values as with a membrane.

A state is a NamedTuple of tensors, maybe of further ones. What is written into them in place is seen by their version
counters, which do not say what was there: that is told by copies, made where no gradients are recorded. Where they are,
a state that was written to is one of which nobody can tell.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from delaykit.attaching.batch.membranes import Change, change_between, is_detached, shares_memory
from delaykit.attaching.batch.rows import selected
from delaykit.attaching.batch.tensors import tensors_in
from delaykit.checks.answers import MEND, answer_of
from delaykit.checks.values import shown
from delaykit.errors import PluginError
from delaykit.functional.eager import eager


class LeftState:
    """A state as the library returned it.

    Args:
        state: its NamedTuple, without histories.
        tensors: the parts of it whose rows are the batch's.
    """

    def __init__(self, state: Any, tensors: list[Tensor]) -> None:
        self.state, self.tensors = state, tensors
        self.had_graph = any(not tensor.is_leaf for tensor in tensors)
        self._copies: list[Tensor] | None = None
        self._versions: list[int] | None = None
        try:
            self._versions = [tensor._version for tensor in tensors]
        except RuntimeError:  # those of inference mode do not count
            self._copies = _copies(tensors)
        else:
            if not torch.is_grad_enabled():
                self._copies = _copies(tensors)

    def untouched(self, state: Any) -> bool:
        """Tell whether it is this very state, nobody wrote into it, and its graph is there."""
        if state is not self.state or self.written():
            return False
        return not (self.had_graph and all(tensor.is_leaf for tensor in self.tensors))

    @eager
    def written(self) -> bool:
        """Tell whether somebody wrote into it since; tensors of inference mode do not count, so their values tell."""
        if self._versions is not None:
            return [tensor._version for tensor in self.tensors] != self._versions
        assert self._copies is not None
        return not all(a is b or torch.equal(a, b) for a, b in zip(self.tensors, self._copies, strict=True))

    def values(self) -> list[Tensor] | None:
        """Return what was in it; None where nobody knows any more."""
        if self._copies is not None:
            return self._copies
        return None if self.written() else self.tensors


def _copies(tensors: list[Tensor]) -> list[Tensor]:
    # A stand-in for a current that nobody is to read (of a fused run) says itself when somebody writes to it.
    return [tensor if getattr(tensor, "stands_in", False) else tensor.detach().clone() for tensor in tensors]


def comes_cut(
    before: list[Tensor], values: list[Tensor] | None, now: list[Tensor], copied: bool = False
) -> bool | None:
    """Tell whether a state that had no graph to lose was detached: other tensors of equal values, but no views.

    Behind a step in inference mode only a copy can go on, which says nothing.

    Args:
        before: the tensors of the state as it was left.
        values: what was in them; None where nobody knows.
        now: its tensors of today.
        copied: whether a copy of them may have been made that is none of a detached one.

    Returns:
        None where nobody can tell, since all of it was replaced and its values are others.
    """
    pairs = list(zip(before, now, strict=False))
    if len(before) != len(now) or any(a is b for a, b in pairs):
        return False
    shared = [(a, b) for a, b in pairs if shares_memory(b, a)]
    if any(not is_detached(b, a) for a, b in shared):
        return False
    if len(shared) == len(now):
        return True
    if values is None or any(a.is_inference() for a in before):
        return False
    same = all(a.shape == b.shape and torch.equal(a.to(b), b) for a, b in zip(values, now, strict=True))
    return True if same and not copied else None


def resting_of(adapter: Any, module: Any, state: Any) -> Any:
    """Ask an adapter for a fresh state beside one; None where that is zero.

    Raises:
        PluginError: what it answers is no state, or not like this one: as many tensors, each of one row or of all.
    """
    fresh = adapter.resting(module, state)
    if fresh is None:
        return None
    wanted = tensors_in(state)
    found = tensors_in(fresh) if isinstance(fresh, tuple | list) else []
    alike = len(found) == len(wanted) and all(map(_spreads, found, wanted))
    if not alike or not all(bool(torch.isfinite(tensor).all()) for tensor in found):
        kind = f"tensors of shapes {', '.join(str(tuple(t.shape)) for t in found)}" if found else shown(fresh)
        kind = "numbers that are not finite" if alike else kind
        expected = f"None, or a state like {', '.join(str(tuple(t.shape)) for t in wanted)}, of finite numbers"
        raise PluginError(answer_of(adapter, "resting"), f"{kind} for a {type(state).__name__}", expected, MEND)
    return fresh


def _spreads(one: Tensor, there: Tensor) -> bool:
    """Tell whether a tensor of a fresh state can be that of every row of another."""
    sizes = zip(reversed(one.shape), reversed(there.shape), strict=False)
    return one.dim() <= there.dim() and all(a in (1, b) for a, b in sizes)


def read_values(
    left: LeftState,
    now: list[Tensor],
    of_one_sample: bool = False,
    rest: list[Tensor] | None = None,
    went: list[int | None] | None = None,
) -> list[int | None] | None:
    """Read off the values what became of the rows of a state; None where nobody can tell.

    Args:
        left: the state as it was.
        now: its tensors as they are.
        of_one_sample: whether there is no batch: all of it is one row.
        rest: the tensors of a fresh state, where they are not zero; of one row or of all.
        went: where its rows are known to have been before, None for one at zero: what is told is what was done to them
            besides.
    """
    before = left.values()
    if before is None:
        return None if went is None else list(range(len(went)))
    if went is not None:
        before = [selected(tensor.detach(), went) if tensor.dim() else tensor for tensor in before]
    pairs = list(zip(before, now, strict=False))
    if any(a.dim() == 0 or b.dim() == 0 or a.shape[1:] != b.shape[1:] for a, b in pairs):
        return None
    rows = [1 if of_one_sample else len(pairs[0][k]) for k in (0, 1)]
    joined = [torch.cat([pair[k].detach().reshape(rows[k], -1).double() for pair in pairs], 1) for k in (0, 1)]
    fresh = None
    if rest is not None and len(rest) == len(now) and joined[0].shape == joined[1].shape:
        spread = [one.detach().expand_as(there) for one, there in zip(rest, now, strict=True)]
        fresh = torch.cat([one.reshape(rows[1], -1).double() for one in spread], 1)
    change: Change = change_between(joined[0], joined[1], rest=fresh)
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
