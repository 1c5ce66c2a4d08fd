"""What a model does between its layers in a run ahead, held to what the run ahead did in its place, gradients included.

Equal values do not show equal gradients: ``x.detach() + factor * (x - x.detach())`` is ``x`` for every factor.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction
from torch.overrides import TorchFunctionMode, _get_current_function_mode

from delaykit.attaching.batch.tensors import tensors_in
from delaykit.functional.engine_base import version_of
from delaykit.wrapping.fused.evaluate import Sources
from delaykit.wrapping.fused.graph import NotAhead
from delaykit.wrapping.fused.recipe import Ahead, Apply, Each, Fixed, Step, StepRecipe

OTHERWISE = "its input is not made the same way at all steps"


@dataclasses.dataclass(slots=True, eq=False)
class Made:
    """A tensor that an operation of this run returned, and the operation; tensors among its arguments likewise."""

    tensor: Tensor
    version: int | None
    function: Any
    args: Any
    kwargs: Any
    leaf: int
    grad: bool


class Glue(TorchFunctionMode):
    """Notes the operations of a run's own loop, but for those within its units."""

    def __init__(self) -> None:
        super().__init__()
        self.within, self.on = 0, True
        self._made: dict[int, Made] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        if self.within or not self.on:
            return output
        leaves = tensors_in(output)
        if leaves:
            given = self._origins(args), self._origins(kwargs or {})
            for leaf, tensor in enumerate(leaves):
                made = Made(tensor, version_of(tensor), func, *given, leaf, torch.is_grad_enabled())
                self._made[id(tensor)] = made
        elif args and isinstance(args[0], Tensor) and getattr(func, "__name__", "") != "__get__":
            self._made.pop(id(args[0]), None)  # changed in place, or watched by a hook
        return output

    def origin(self, value: Any) -> Any:
        """Return how a tensor was made; itself, where that was not seen."""
        return self._made.get(id(value), value)

    def _origins(self, values: Any) -> Any:
        if isinstance(values, Tensor):
            return self.origin(values)
        if type(values) in (tuple, list):
            return type(values)([self._origins(value) for value in values])
        if type(values) is dict:
            return {key: self._origins(value) for key, value in values.items()}
        return values

    def leave(self) -> None:
        """Note no more."""
        if self.on and _get_current_function_mode() is self:
            self.on = False
            self._made = {}
            self.__exit__(None, None, None)


class Follower:
    """Compares how inputs are made in a run with recipes.

    Args:
        glue: what the run does.
        sources: what it knows.
    """

    def __init__(self, glue: Glue, sources: Sources) -> None:
        self.glue, self.sources = glue, sources
        self._first: dict[tuple[int, int], tuple[Any, StepRecipe]] = {}

    def first(self, recipe: StepRecipe, given: Any) -> StepRecipe:
        """Return a recipe with the numbers of this run, which made ``given`` by it at the first step.

        Raises:
            NotAhead: it was made in another way.
        """
        if not isinstance(recipe, Apply):
            if not self._is(recipe, _tensor(given), 0):
                raise NotAhead(OTHERWISE)
            return recipe
        key = (id(recipe), id(given))
        if key not in self._first:
            if not _fits(recipe, given):
                raise NotAhead(OTHERWISE)
            args, kwargs = self._numbers(recipe.args, given.args), self._numbers(recipe.kwargs, given.kwargs)
            self._first[key] = given, dataclasses.replace(recipe, args=args, kwargs=kwargs)
        return self._first[key][1]

    def _numbers(self, known: Any, given: Any) -> Any:
        if isinstance(known, StepRecipe):
            return self.first(known, given)
        if isinstance(known, Step):
            if type(given) is not int or given != known.offset:
                raise NotAhead(OTHERWISE)
            return known
        if isinstance(known, (tuple, list, dict, slice)) or isinstance(given, (Made, Tensor)):
            if type(known) is not type(given) or len(_parts(known)) != len(_parts(given)):
                raise NotAhead(OTHERWISE)
            return _rebuilt(known, [self._numbers(a, b) for a, b in zip(_parts(known), _parts(given), strict=True)])
        return given

    def same(self, recipe: Any, given: Any, step: int, done: set[tuple[int, int]]) -> bool:
        """Tell whether ``given`` was made by ``recipe``, or is it, at a later step."""
        if isinstance(recipe, Apply):
            key = (id(recipe), id(given))
            if key in done:
                return True
            if not _fits(recipe, given):
                return False
            pairs = ((recipe.args, given.args), (recipe.kwargs, given.kwargs))
            if not all(self.same(a, b, step, done) for a, b in pairs):
                return False
            done.add(key)
            return True
        if isinstance(recipe, StepRecipe):
            return self._is(recipe, _tensor(given), step)
        if isinstance(recipe, Step):
            return type(given) is int and given == recipe.offset + step
        if type(recipe) is not type(given):
            return False
        if isinstance(recipe, (tuple, list, dict, slice)):
            parts = _parts(recipe), _parts(given)
            alike = len(parts[0]) == len(parts[1]) and (type(recipe) is not dict or recipe.keys() == given.keys())
            return alike and all(self.same(a, b, step, done) for a, b in zip(*parts, strict=True))
        return recipe is given or bool(recipe == given)

    def _is(self, recipe: StepRecipe, tensor: Any, step: int) -> bool:
        if isinstance(recipe, Fixed):
            return self.sources.fixed(recipe.node) is tensor
        if isinstance(recipe, Each):
            parts, place = self.sources.parts(recipe.operation), recipe.offset + step
            return place < len(parts) and parts[place] is tensor
        assert isinstance(recipe, Ahead)
        handed = self.sources.ahead(recipe.unit, recipe.place, recipe.leaf).handed
        return handed is not None and step < len(handed) and handed[step] is tensor


def _fits(recipe: Apply, given: Any) -> bool:
    """Tell whether a tensor comes from the operation of a recipe, and is what that returned."""
    if not isinstance(given, Made) or given.function != recipe.function or given.leaf != recipe.leaf:
        return False
    if given.grad != (recipe.grad and torch.is_grad_enabled()):
        return False
    return version_of(given.tensor) == given.version and not isinstance(given.tensor.grad_fn, BackwardCFunction)


def _tensor(given: Any) -> Any:
    return given.tensor if isinstance(given, Made) else given


def _parts(values: Any) -> list[Any]:
    if isinstance(values, slice):
        return [values.start, values.stop, values.step]
    return list(values.values() if isinstance(values, dict) else values)


def _rebuilt(like: Any, parts: list[Any]) -> Any:
    if isinstance(like, slice):
        return slice(*parts)
    if isinstance(like, dict):
        return dict(zip(like, parts, strict=True))
    return type(like)(*parts) if hasattr(like, "_fields") else type(like)(parts)


def operations(recipe: Any) -> list[Apply]:
    """Return the operations of a recipe."""
    if isinstance(recipe, Apply):
        return [recipe, *operations(recipe.args), *operations(recipe.kwargs)]
    nested = isinstance(recipe, (tuple, list, dict))
    return [one for part in _parts(recipe) for one in operations(part)] if nested else []


def shows_in_values(recipe: Apply, sources: Sources) -> bool:
    """Tell whether an operation only takes the step's part of a tensor that asks for no gradient."""
    base = recipe.args[0]
    plain = getattr(recipe.function, "__name__", "") == "__getitem__" and isinstance(base, Fixed)
    return plain and not sources.fixed(base.node).requires_grad
