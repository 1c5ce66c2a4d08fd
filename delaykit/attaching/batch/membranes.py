"""What became of a neuron's membrane since its own last step: nothing, an edit, a reset, or rows that came and went.

Values are compared only where the tensor is another one or was written to. Equal values continue, cut for gradients
where their graph is gone. All zero where some value was not is a reset; some rows newly zero and all others unchanged
are resets of these rows; fewer rows that are the first of before are what is left of a batch. No row newly zero is an
edit, and spikes under way arrive, unless all that changed are rows of before in other places. One number for all rows,
or zeros of another batch, are a rest. Of everything else nobody can tell.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from delaykit.functional.engine_base import version_of

Kind = Literal["same", "reset", "rows", "edit", "unclear", "resized"]


class Change(NamedTuple):
    """A membrane compared with the one that the neuron left.

    Args:
        kind: what happened.
        cut: its graph is gone (truncated BPTT).
        rows: mask of the rows that were reset (``rows``).
        batch: number of rows now (``resized``, ``unclear``); 0 where it is as before.
        doubt: it may have been detached, too, and had no graph by which to tell.
    """

    kind: Kind
    cut: bool = False
    rows: Tensor | None = None
    batch: int = 0
    doubt: bool = False


SAME, CUT, RESET = Change("same"), Change("same", cut=True), Change("reset")


class LeftMembrane:
    """The membrane that a neuron's own last step left behind.

    Args:
        copies: keep its values too, so that what is written into it can be told from before.

    Attributes:
        line: whether a connection that follows it has a graph to lose where it has none itself: its step was not
            recorded, or nothing that learns had reached it.
    """

    def __init__(self, copies: bool = False) -> None:
        self.copies = copies
        self.tensor: Tensor | None = None  # held, so that its identity and its address cannot be reused
        self.keeps_nothing = False  # whether the neuron's step left none, and nobody has looked since
        self.line = False
        self._graph = False
        self._version: int | None = 0
        self._values: Tensor | None = None

    def keep(self, membrane: Tensor | None) -> None:
        """Remember a membrane as it is now."""
        self.tensor, self.keeps_nothing = membrane, False
        if membrane is None:
            return
        self._graph, self._version = not membrane.is_leaf, version_of(membrane)
        if self.copies:
            values = self._values
            same = values is not None and values.shape == membrane.shape and values.dtype == membrane.dtype
            if values is None or not same or values.device != membrane.device or values.is_inference():
                self._values = membrane.detach().clone()
            else:
                values.copy_(membrane.detach())

    @property
    def values(self) -> Tensor | None:
        """What was there, where copies are kept; else what is there now."""
        return self._values if self._values is not None or self.tensor is None else self.tensor.detach()

    def release(self) -> None:
        """Let the graph go, keep the values: a run has ended."""
        if self.tensor is not None and self._graph:
            self.tensor = self.tensor.detach()

    def is_place(self, membrane: Tensor) -> bool:
        """Tell whether it is this very membrane, or a view of it, written to or not."""
        left = self.tensor
        if left is None or membrane.numel() == 0 or left.layout is not torch.strided:
            return membrane is left
        return membrane is left or (membrane.data_ptr() == left.data_ptr() and membrane.shape == left.shape)

    def untouched(self, membrane: Tensor | None) -> bool:
        """Tell at a glance whether it is this very membrane, and nothing was done to it: what most steps find."""
        if membrane is None or membrane is not self.tensor or membrane.is_inference():
            return False
        return membrane._version == self._version and membrane.is_leaf is not self._graph

    def is_own(self, membrane: Tensor | None) -> bool:
        """Tell whether it is this very membrane, or a view of it, and nobody wrote to it."""
        left = self.tensor
        if left is None or membrane is None or membrane.numel() == 0 or version_of(membrane) != self._version:
            return False
        return self.is_place(membrane)

    def comes_cut(self, given: list[Tensor]) -> bool:
        """Tell whether it is among these without its graph, which it is known to have lost from then on.

        At rest it is known by its place in memory alone: other tensors may be zero, too.
        """
        left = self.tensor
        if left is None or not (self._graph or self.line) or any(one is left for one in given):
            return False
        for one in given:
            alike = one.is_leaf and one.shape == left.shape and one.dtype == left.dtype and one.device == left.device
            if not alike or not (self.is_place(one) or (one.any() and torch.equal(one, left))):
                continue
            if self._graph or self._detached(one):
                self._graph = self.line = False
                return True
        return False

    def _detached(self, one: Tensor) -> bool:
        """Tell whether this leaf, of equal values, was cut from a membrane that had no graph to lose itself.

        Any other tensor counts, be it a copy, but no view, which is made of it without a thought of gradients. Behind
        a step in inference mode only a copy can go on, which says nothing.
        """
        left = self.tensor
        if left is None or one is left:
            return False
        return is_detached(one, left) if shares_memory(one, left) else not left.is_inference()

    def look(
        self,
        membrane: Tensor | None,
        of_one_sample: Callable[[], bool] = lambda: False,
        resting: Callable[[], Tensor | None] = lambda: None,
    ) -> Change:
        """Say what became of it; a neuron that keeps nothing begins anew with every call.

        Args:
            membrane: what the neuron has now.
            of_one_sample: tells whether one dimension is that of its neurons, and not a batch.
            resting: says what a fresh membrane is, where that is not zero.
        """
        left = self.tensor
        if left is None:
            return RESET if membrane is None and self.keeps_nothing else SAME
        if membrane is left:
            if version_of(membrane) == self._version and not membrane.is_inference():
                return CUT if self._graph and membrane.is_leaf else SAME
            if self._values is None:  # written to, and nobody knows what was there
                return SAME if bool(membrane.detach().any()) else RESET
        if membrane is None or membrane.numel() == 0:
            return RESET
        if membrane.layout is not torch.strided or left.layout is not torch.strided:
            return Change("unclear")
        if not self.line or self._graph:
            return self._compared(membrane, self._graph and membrane.is_leaf, of_one_sample, resting)
        change = self._compared(membrane, membrane.is_leaf and self._detached(membrane), of_one_sample, resting)
        edited = change.kind != "same" and not shares_memory(membrane, left)
        return change._replace(cut=False, doubt=True) if edited else change

    def _compared(
        self, membrane: Tensor, cut: bool, of_one_sample: Callable[[], bool], resting: Callable[[], Tensor | None]
    ) -> Change:
        left, before = self.tensor, self.values
        assert left is not None and before is not None
        if membrane is not left and membrane.data_ptr() == left.data_ptr() and membrane.shape == left.shape:
            if version_of(membrane) == self._version:
                return CUT if cut else SAME
        view, now = membrane.data_ptr() == left.data_ptr(), membrane.detach()
        if now.dim() == 1 and of_one_sample():
            before, now = before.reshape(1, -1), now.reshape(1, -1)
        change = change_between(before, now, cut, view)
        if change.kind == "edit" and (rest := resting()) is not None:
            return change_between(before, now, cut, view, rest.detach().expand_as(membrane).reshape_as(now).to(now))
        return change


def shares_memory(one: Tensor, left: Tensor) -> bool:
    """Tell whether two tensors lie in the same memory, be it in part."""
    if left.layout is not torch.strided or one.layout is not torch.strided or one.device != left.device:
        return False
    return one.numel() > 0 and one.untyped_storage().data_ptr() == left.untyped_storage().data_ptr()


def is_detached(one: Tensor, left: Tensor) -> bool:
    """Tell ``left.detach()`` and its views from views of ``left``, which lie in the same memory, too.

    A tensor that was detached is no view to autograd, also where there was no graph to be cut from. In inference mode
    nothing is: there one of the same shape is taken for detached.
    """
    if left.is_inference():
        return one is not left and one.shape == left.shape
    return one is not left and one._base is not left and (one._base is None or one._base is not left._base)


def begins_alike(began: Tensor | None, membrane: Tensor) -> bool:
    """Tell whether a membrane is at rest, or what an earlier sequence began with, be it of another batch."""
    if began is None or began.shape[1:] != membrane.shape[1:] or not len(began):
        return not bool(membrane.any())
    alike = torch.equal(began, membrane) or bool((membrane == began[:1]).all())
    return alike or not bool(membrane.any())


def change_between(
    before: Tensor, now: Tensor, cut: bool = False, view: bool = False, rest: Tensor | None = None
) -> Change:
    """Read a change off the values.

    Args:
        before: (batch, ...), what was left.
        now: (batch, ...), what is there.
        cut: whether the graph of it is gone.
        view: whether they begin at the same place in memory.
        rest: what is fresh beside zero, of the shape of ``now``.
    """
    if now.device != before.device or now.dtype != before.dtype:
        now = now.to(before)
    if now.shape != before.shape:
        return _resized(before, now, cut, view)
    if torch.equal(now, before):
        return CUT if cut else SAME
    if now.dim() == 0:
        return Change("edit", cut) if bool(now) else RESET
    rows_before, rows = before.flatten(1) if before.dim() > 1 else before.unsqueeze(1), now.reshape(len(now), -1)
    filled, was_filled = (rows != 0).any(1), (rows_before != 0).any(1)
    if rest is not None:
        fresh = rest.reshape(rows.shape)
        filled, was_filled = filled & (rows != fresh).any(1), was_filled & (rows_before != fresh).any(1)
    if not bool(filled.any()):
        return RESET
    gone = was_filled & ~filled
    if not bool(gone.any()):
        return Change("unclear") if _moved(rows_before, rows) else Change("edit", cut)
    if torch.equal(rows[~gone], rows_before[~gone]):
        return Change("rows", cut, gone)
    return Change("unclear")


def _resized(before: Tensor, now: Tensor, cut: bool, view: bool) -> Change:
    unclear = Change("unclear", batch=len(now) if now.dim() else 0)
    if now.dim() == 0 and before.numel() > 1:
        return RESET  # one number, whatever it is, is the state of no row
    if now.dim() == 0 or before.dim() == 0 or now.shape[1:] != before.shape[1:]:
        return RESET if bool(before.any()) and not bool(now.any()) else unclear
    least = min(len(now), len(before))
    if not bool(now.any()) and bool((before.flatten(1) != 0).any(1).all()):
        return RESET  # no row of before is left
    if not torch.equal(now[:least], before[:least]) or bool(now[least:].any()):
        return unclear
    kept, gone = before[:least].flatten(1), before[least:].flatten(1)
    if not view and bool((kept.unsqueeze(1) == gone.unsqueeze(0)).all(2).any()):
        return unclear  # a row that stays is equal to one that leaves: either may be the one
    return Change("resized", cut, batch=len(now))


def _moved(before: Tensor, now: Tensor) -> bool:
    """Tell whether these are rows of before in other places, all or some of them, by one number a row."""
    mix = torch.linspace(1.0, 2.0, now.shape[1], dtype=torch.float64, device=now.device).sqrt()
    # Not a matrix product: what that gives for a row depends, in its last bit, on the row's place.
    one, two = ((rows.double().contiguous() * mix).sum(1) for rows in (before, now))
    if torch.equal(one, two):
        return False
    if now.shape[1] == 1:  # of one value a row, an edit, as a clamp, may make two alike
        return torch.equal(one.sort().values, two.sort().values)
    return bool(torch.isin(two[one != two], one).all())
