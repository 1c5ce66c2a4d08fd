"""How a unit's inputs are made at any step: two steps of a run compared, and what differs must be the step's number."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import Any

from torch import Tensor

from delaykit.wrapping.fused.graph import Argument, Constant, Node, NotAhead, Operation, Output, Result


@dataclasses.dataclass(frozen=True, eq=False)
class StepRecipe:
    """How a tensor is made at each step; leaves that do not change are nodes of the run."""


@dataclasses.dataclass(frozen=True, eq=False)
class Fixed(StepRecipe):
    """A tensor that is there before the loop begins, and stays."""

    node: Node


@dataclasses.dataclass(frozen=True, eq=False)
class Ahead(StepRecipe):
    """What a unit returns earlier in the same step, at its ``place``-th call of the step."""

    unit: str
    place: int
    leaf: int


@dataclasses.dataclass(frozen=True, eq=False)
class Each(StepRecipe):
    """The part ``step + offset`` of what an operation before the loop returned."""

    operation: Operation
    offset: int


@dataclasses.dataclass(frozen=True, eq=False)
class Apply(StepRecipe):
    """An operation of the step; recipes and :class:`Step` stand among its arguments."""

    function: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    leaf: int
    grad: bool = True


@dataclasses.dataclass(frozen=True)
class Step:
    """The number of the step, plus ``offset``, where a model counts with it."""

    offset: int


@dataclasses.dataclass(frozen=True)
class Loop:
    """Where the time loop is in a run.

    Args:
        times: how often each unit of the loop is called in a step, by path.
        begin: number of operations before the first of these calls.
    """

    times: dict[str, int]
    begin: int


class Comparison:
    """Two steps of a run, compared.

    Args:
        loop: where the loop is.
        first: number of the one step.
        second: number of the other.
        hooked: tensors whose gradients somebody looks at, which go through those very tensors.
    """

    def __init__(self, loop: Loop, first: int, second: int, hooked: Collection[Node] = ()) -> None:
        self.loop, self.first, self.second, self.hooked = loop, first, second, hooked
        self._done: dict[tuple[int, int], StepRecipe] = {}

    def recipe(self, one: Node, two: Node) -> StepRecipe:
        """Return how a tensor is made that was ``one`` at the first step and ``two`` at the second.

        Raises:
            NotAhead: it cannot be known before the step.
        """
        key = (id(one), id(two))
        if key not in self._done:
            self._done[key] = self._recipe_of(one, two)
        return self._done[key]

    def _recipe_of(self, one: Node, two: Node) -> StepRecipe:
        if one in self.hooked or two in self.hooked:
            raise NotAhead("a hook looks at the gradient of its input")
        if isinstance(one, Output) and isinstance(two, Output) and one.unit in self.loop.times:
            return self._output(one, two)
        if one is two:
            if isinstance(one, Result) and one.operation.number >= self.loop.begin:
                raise NotAhead("its input was made at one step and used again at others")
            return Fixed(_named(one))
        if isinstance(one, Argument) and isinstance(two, Argument) and one.index == two.index:
            return Fixed(one)
        if isinstance(one, Constant) and isinstance(two, Constant) and one.tensor is two.tensor:
            return Fixed(_named(one))
        if isinstance(one, Result) and isinstance(two, Result):
            return self._result(one, two)
        raise NotAhead("its input comes from operations that carry something from step to step")

    def _output(self, one: Output, two: Output) -> StepRecipe:
        times = self.loop.times[one.unit]
        step, place = divmod(one.call, times)
        later, same_place = divmod(two.call, times)
        if two.unit != one.unit or place != same_place or one.leaf != two.leaf:
            raise NotAhead("its input comes from different units at different steps")
        if (step, later) == (self.first, self.second):
            return Ahead(one.unit, place, one.leaf)
        if self.first - step == self.second - later:
            raise NotAhead(f"its input is what {one.unit!r} returned at an earlier step: a recurrent knot")
        raise NotAhead(f"its input is what {one.unit!r} returned at one step of the run")

    def _result(self, one: Result, two: Result) -> StepRecipe:
        here, there = one.operation, two.operation
        if here is there:
            offset = self._offset(one.leaf, two.leaf)
            if here.number >= self.loop.begin or offset is None:
                raise NotAhead("its input was made at one step and used again at others")
            return Each(here, offset)
        if here.changes or there.changes:
            raise NotAhead("its input comes from an operation that changes a tensor in place")
        if here.function != there.function or one.leaf != two.leaf or here.grad != there.grad:
            raise NotAhead("its input comes from different operations at different steps, or carries something on")
        args = self._values(here.args, there.args)
        return Apply(here.function, args, self._values(here.kwargs, there.kwargs), one.leaf, here.grad)

    def _values(self, one: Any, two: Any) -> Any:
        if isinstance(one, Node) and isinstance(two, Node):
            return self.recipe(one, two)
        if type(one) is not type(two):
            raise NotAhead("its input comes from operations whose arguments change from step to step")
        if isinstance(one, (tuple, list)) and len(one) == len(two):
            parts = [self._values(a, b) for a, b in zip(one, two, strict=True)]
            return type(one)(*parts) if hasattr(one, "_fields") else type(one)(parts)
        if isinstance(one, dict) and one.keys() == two.keys():
            return {key: self._values(one[key], two[key]) for key in one}
        if isinstance(one, slice):
            return slice(*(self._values(getattr(one, x), getattr(two, x)) for x in ("start", "stop", "step")))
        if one is two or (not isinstance(one, Tensor) and bool(one == two)):
            return one
        offset = self._offset(one, two) if type(one) is int else None
        if offset is None:
            raise NotAhead("its input comes from operations whose arguments change from step to step")
        return Step(offset)

    def _offset(self, one: int, two: int) -> int | None:
        return one - self.first if one - self.first == two - self.second else None


def _named(node: Node) -> Node:
    if isinstance(node, Constant) and node.name is None:
        raise NotAhead("its input is made with a tensor that is no parameter, buffer or attribute of a module")
    return node


def loop_of(calls: dict[str, list[Any]]) -> tuple[Loop, int] | None:
    """Find the units that are called at every step, and the number of steps; None where nothing is called twice."""
    often = {unit: len(c) for unit, c in calls.items() if len(c) > 1}
    if not often:
        return None
    counts = list(often.values())
    steps = max(sorted(set(counts), reverse=True), key=counts.count)  # what most units agree on
    times = {unit: count // steps for unit, count in often.items() if count % steps == 0}
    begin = min(calls[unit][0].operations for unit in often)
    return Loop(times, begin), steps
