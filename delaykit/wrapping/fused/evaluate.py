"""A recipe carried out for all steps of a run at once."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from delaykit.wrapping.fused.graph import Argument, Node, NotAhead, Operation, Result
from delaykit.wrapping.fused.recipe import Ahead, Apply, Each, Fixed, Step, StepRecipe


class Timed(NamedTuple):
    """A tensor of every step.

    Args:
        tensor: ``(time, ...)``, or without time where it is the same at all steps.
        handed: the very tensors, one a step, or the one of all steps, where no operation of the step made them.
        constant: whether there is no time.
    """

    tensor: Tensor
    handed: tuple[Any, ...] | None = None
    constant: bool = False


class Sources(Protocol):
    """What a run knows when a unit is called first."""

    def fixed(self, node: Node) -> Tensor:
        """Return a tensor from before the loop."""

    def parts(self, operation: Operation) -> list[Tensor]:
        """Return all that an operation before the loop returned."""

    def ahead(self, unit: str, place: int, leaf: int) -> Timed:
        """Return what a unit returns at every step."""

    def length(self, available: int) -> int:
        """Return the number of steps of this run, where ``available`` are at hand."""


class Evaluation:
    """Recipes of one run, each carried out once.

    Args:
        sources: the run.
    """

    def __init__(self, sources: Sources) -> None:
        self.sources = sources
        self._done: dict[int, Timed] = {}

    def __call__(self, recipe: StepRecipe) -> Timed:
        """Carry a recipe out.

        Raises:
            NotAhead: it draws random numbers, or cannot be carried out.
        """
        if id(recipe) not in self._done:
            self._done[id(recipe)] = self._run(recipe)
        return self._done[id(recipe)]

    def _run(self, recipe: StepRecipe) -> Timed:
        if isinstance(recipe, Fixed):
            fixed = self.sources.fixed(recipe.node)
            return Timed(fixed, (fixed,), constant=True)
        if isinstance(recipe, Ahead):
            return self.sources.ahead(recipe.unit, recipe.place, recipe.leaf)
        if isinstance(recipe, Each):
            parts = self.sources.parts(recipe.operation)
            steps = self.sources.length(len(parts) - recipe.offset)
            own = slice(recipe.offset, recipe.offset + steps)
            cut = self._cut(recipe.operation, parts)
            return Timed(torch.stack(parts[own]) if cut is None else cut[own], tuple(parts[own]))
        assert isinstance(recipe, Apply)
        with _no_random_numbers():
            return self._apply(recipe)

    def _cut(self, operation: Operation, parts: list[Tensor]) -> Tensor | None:
        """Return what the parts are views of, with time in front; None where they are none, or ask for gradients."""
        plain = all(part.layout is torch.strided and not part.requires_grad for part in parts)
        if operation.function not in (Tensor.unbind, torch.unbind) or not plain:
            return None
        given, *dim = *operation.args, *operation.kwargs.values()
        if not isinstance(given, Argument | Result):
            return None
        whole = self.sources.fixed(given)
        whole = whole.movedim(dim[0] if dim else 0, 0)
        alike = len(whole) == len(parts) and all(_lies_as(whole[k], parts[k]) for k in (0, -1))
        return whole if alike and not whole.requires_grad else None

    def _apply(self, recipe: Apply) -> Timed:
        leaves, spec = tree_flatten((recipe.args, recipe.kwargs))
        values = [self(leaf) if isinstance(leaf, StepRecipe) else leaf for leaf in leaves]
        if any(_counts(leaf) for leaf in leaves):
            return self._counted(recipe, values, spec)
        moving = [k for k, v in enumerate(values) if isinstance(v, Timed) and not v.constant]
        plain = [v.tensor if isinstance(v, Timed) else v for v in values]

        def at(*tensors: Tensor) -> Tensor:
            filled = list(plain)
            for k, tensor in zip(moving, tensors, strict=True):
                filled[k] = tensor
            return _call(recipe, tree_unflatten(filled, spec))

        if not moving:
            return Timed(at(), constant=True)
        inputs = [plain[k] for k in moving]
        try:
            return Timed(torch.vmap(at)(*inputs))
        except Exception:  # no batching rule: step by step, still ahead
            return Timed(torch.stack([at(*step) for step in zip(*(x.unbind(0) for x in inputs), strict=True)]))

    def _counted(self, recipe: Apply, values: list[Any], spec: Any) -> Timed:
        """Carry out an operation whose arguments contain the number of the step."""
        whole = _whole(recipe, values)
        if whole is not None:
            return Timed(whole[: self.sources.length(whole.shape[0])])
        times = [len(v.tensor) for v in values if isinstance(v, Timed) and not v.constant]
        steps = self.sources.length(min(times, default=0))
        made = []
        for step in range(steps):
            filled = [_at(value, step) for value in values]
            made.append(_call(recipe, tree_unflatten(filled, spec)))
        return Timed(torch.stack(made))


def _lies_as(one: Tensor, two: Tensor) -> bool:
    """Tell whether two tensors are the same memory, looked at in the same way."""
    return one.data_ptr() == two.data_ptr() and one.stride() == two.stride() and one.shape == two.shape


def _call(recipe: Apply, arguments: Any) -> Tensor:
    args, kwargs = arguments
    with torch.set_grad_enabled(recipe.grad and torch.is_grad_enabled()):
        output = recipe.function(*args, **kwargs)
    tensor: Tensor = tree_leaves(output)[recipe.leaf]
    return tensor


def _counts(value: Any) -> bool:
    if isinstance(value, slice):
        return any(isinstance(x, Step) for x in (value.start, value.stop, value.step))
    return isinstance(value, Step)


def _at(value: Any, step: int) -> Any:
    if isinstance(value, Step):
        return step + value.offset
    if isinstance(value, slice):
        return slice(_at(value.start, step), _at(value.stop, step), _at(value.step, step))
    if isinstance(value, Timed):
        return value.tensor if value.constant else value.tensor[step]
    return value


def _whole(recipe: Apply, values: list[Any]) -> Tensor | None:
    """Return ``x`` with time in front for ``x[t]``, ``x[:, t]``, ``x[:, :, t]`` ...; None for anything else."""
    if getattr(recipe.function, "__name__", "") != "__getitem__" or not isinstance(values[0], Timed):
        return None
    base, index = values[0], values[1:]
    *before, last = index
    if not base.constant or last != Step(0) or any(value != slice(None) for value in before):
        return None
    return base.tensor.movedim(len(before), 0)


@contextlib.contextmanager
def _no_random_numbers() -> Iterator[None]:
    before = random_states()
    yield
    if not same_states(before, random_states()):
        restore_states(before)
        raise NotAhead("its input is made with random numbers at every step")


def random_states() -> list[Tensor]:
    """Return the state of torch's generators."""
    states = [torch.get_rng_state()]
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        states.append(torch.cuda.get_rng_state())
    return states


def same_states(one: list[Tensor], two: list[Tensor]) -> bool:
    """Tell whether no random number was drawn."""
    return all(torch.equal(a, b) for a, b in zip(one, two, strict=False))


def restore_states(states: list[Tensor]) -> None:
    """Set torch's generators back."""
    torch.set_rng_state(states[0])
    if len(states) > 1:
        torch.cuda.set_rng_state(states[1])
