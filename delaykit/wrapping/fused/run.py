"""One run of a model in which its units answer from sequences computed ahead."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode, _get_current_function_mode
from torch.utils._pytree import tree_leaves

from delaykit.attaching.batch.tensors import tensors_in
from delaykit.errors import HistoryError
from delaykit.wrapping.fused.evaluate import Evaluation, Timed
from delaykit.wrapping.fused.glue import OTHERWISE, Follower, Glue, operations, shows_in_values
from delaykit.wrapping.fused.graph import (
    Argument,
    Constant,
    Miss,
    Node,
    NotAhead,
    Operation,
    Output,
    Result,
    stops_checkpoint,
    tensor_named,
    told,
)
from delaykit.wrapping.fused.recipe import Apply, Loop, StepRecipe
from delaykit.wrapping.fused.tracks import FeedForward, Spiking, Track, Unread
from delaykit.wrapping.fused.units import NeuronUnit, Unit
from delaykit.wrapping.fused.watch import Forward, answering, in_place

Place = tuple[str, int]  # a unit, and which of its calls within a step


@dataclasses.dataclass
class Layout:
    """What is known of a model's runs with one kind of arguments.

    Args:
        loop: where the time loop is; None where there is none.
        steps: how many steps the watched run had.
        functions: operations of the watched run before the loop.
        recipes: how the inputs of each unit call of a step are made.
        reasons: why a unit runs step by step, by path.
    """

    loop: Loop | None
    steps: int
    functions: list[Any]
    recipes: dict[Place, StepRecipe]
    reasons: dict[str, str]

    @property
    def fused(self) -> list[str]:
        """Paths of the units that answer ahead."""
        return list(dict.fromkeys(unit for unit, _ in self.recipes if unit not in self.reasons))


class _Before(TorchFunctionMode):
    """Keeps what the operations before the loop return, and sees that they are the ones that were watched."""

    def __init__(self, functions: list[Any]) -> None:
        super().__init__()
        self.functions, self.results = functions, []
        self.inside, self.over, self.left = 0, False, False

    results: list[list[Tensor]]

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self.over or self.inside:
            return func(*args, **(kwargs or {}))
        self.inside += 1
        try:
            output = func(*args, **(kwargs or {}))
        finally:
            self.inside -= 1
        leaves = tensors_in(output)
        if leaves or in_place(func, kwargs):
            number = len(self.results)
            if number >= len(self.functions) or self.functions[number] != func:
                raise Miss(None, "before the loop, the model does other things than in the watched run")
            self.results.append(leaves)
        return output

    def leave(self) -> None:
        """Look no further: the loop begins. Every call of torch costs time while a mode is on."""
        self.over = True
        if not self.left and _get_current_function_mode() is self:  # else the model has put its own on top
            self.left = True
            self.__exit__(None, None, None)


class Run:
    """One run ahead.

    Args:
        net: the model.
        layout: what is known.
        units: the model's units by path.
        arguments: leaves of the call's arguments.
    """

    def __init__(self, net: nn.Module, layout: Layout, units: dict[str, Unit], arguments: list[Any]) -> None:
        assert layout.loop is not None
        self.net = net
        self.layout, self.units, self.arguments, self.loop = layout, units, arguments, layout.loop
        self.before = _Before(layout.functions)
        self.evaluation = Evaluation(self)
        ahead = [recipe for (unit, _), recipe in layout.recipes.items() if unit not in layout.reasons]
        self.between, self.glue = operations(ahead), Glue()
        self.glue.on = bool(self.between)
        self.follower = Follower(self.glue, self)
        self.made: dict[Place, StepRecipe] = {}
        self.tracks: dict[Place, Track] = {}
        self.once: dict[tuple[str, int], list[Tensor]] = {}
        self.counts = dict.fromkeys(units, 0)
        self.native: set[str] = set()
        self.steps: int | None = None

    def __call__(self, program: Callable[[], Any]) -> Any:
        """Run the model; units answer ahead where they can.

        Raises:
            Miss: something was not as foreseen.
        """
        forwards = {unit.module: self._player(path, unit.module.forward) for path, unit in self.units.items()}
        with answering(forwards):
            if self.glue.on:
                self.glue.__enter__()
            self.before.__enter__()
            try:
                output = program()
            finally:
                self.before.leave()
                self.glue.leave()
        for track in self.tracks.values():
            track.check_made()
            track.check_kept()
            if isinstance(track, FeedForward):
                track.leave()
        kept = [list(unit.module._buffers.values()) for unit in self.units.values() if isinstance(unit, NeuronUnit)]
        for leaf in tree_leaves((output, kept)):
            if isinstance(leaf, Unread):
                raise Miss(leaf.__dict__["unit"], "its synaptic current is read")
        return output

    def _player(self, path: str, real: Forward) -> Forward:
        times = self.loop.times.get(path)
        if times is None:
            return self._outside(path, real)

        def player(*args: Any, **kwargs: Any) -> Any:
            if not self.before.over:
                self.before.leave()
                if all(shows_in_values(one, self) for one in self.between):
                    self.glue.leave()
            self.glue.within += 1
            try:
                return answer(args, kwargs)
            finally:
                self.glue.within -= 1

        def answer(args: Any, kwargs: Any) -> Any:
            step, place = divmod(self.counts[path], times)
            self.counts[path] += 1
            if path not in self.native:
                track = self.tracks.get((path, place))
                if track is None and step == 0:
                    track = self._begin(path, place, args, kwargs)
                if track is not None:
                    self._follow(path, place, step, args, kwargs)
                    return track.answer(step, args, kwargs)
            return real(*args, **kwargs)

        return player

    def _outside(self, path: str, real: Forward) -> Forward:
        """Let a unit that is not part of the loop run as ever, its operations unseen."""

        def player(*args: Any, **kwargs: Any) -> Any:
            self.before.inside += 1
            self.glue.within += 1
            try:
                output = real(*args, **kwargs)
            finally:
                self.before.inside -= 1
                self.glue.within -= 1
            number, self.counts[path] = self.counts[path], self.counts[path] + 1
            self.once[path, number] = tensors_in(output)
            return output

        return player

    def _begin(self, path: str, place: int, args: Any, kwargs: Any) -> Track | None:
        """Compute a unit's sequence at its first call; None, and step by step from there, where that cannot be."""
        recipe = self.layout.recipes.get((path, place))
        if recipe is None or path in self.layout.reasons:
            self._give_up(path, place, "")
            return None
        unit = self.units[path]
        if bar := unit.bar:  # of now: hooks that the proof did not see
            self._give_up(path, place, bar)
            return None
        kind: Any = Spiking if isinstance(unit, NeuronUnit) else FeedForward
        try:
            if self.glue.on and isinstance(recipe, Apply):
                recipe = self.follower.first(recipe, self.glue.origin(_input(args, kwargs)))
                self.made[path, place] = recipe
            timed = self.evaluation(recipe)
            if timed.constant and self.steps is None:
                self.length(0)
            assert self.steps is not None
            track: Track = kind(unit, timed, self.steps, args, kwargs)
        except NotAhead as why:
            self._give_up(path, place, str(why))
            return None
        except HistoryError:  # no fault of running ahead
            raise
        except Exception as error:
            if stops_checkpoint(error):
                raise
            self._give_up(path, place, f"ahead of time it fails: {told(error)}")
            return None
        self.tracks[path, place] = track
        return track

    def _follow(self, path: str, place: int, step: int, args: Any, kwargs: Any) -> None:
        """Raise :class:`Miss` where the input of this call was made in another way than that of the first step."""
        recipe = self.made.get((path, place)) if step and self.glue.on else None
        if recipe is None:
            return
        if not self.follower.same(recipe, self.glue.origin(_input(args, kwargs)), step, set()):
            raise Miss(path, OTHERWISE)

    def _give_up(self, path: str, place: int, reason: str) -> None:
        if place > 0 and (path, 0) in self.tracks:  # the calls of one unit all run ahead, or none
            raise Miss(path, reason)
        self.native.add(path)
        if reason:
            self.layout.reasons.setdefault(path, reason)

    def fixed(self, node: Node) -> Tensor:
        """Return a tensor from before the loop."""
        if isinstance(node, Constant):
            assert node.name is not None
            return tensor_named(self.net, node.name)  # the watched run may have been a copy's
        if isinstance(node, Argument):
            tensor: Tensor = self.arguments[node.index]
            return tensor
        if isinstance(node, Output):
            if (node.unit, node.call) not in self.once:
                raise NotAhead(f"it needs what {node.unit!r} returns later")
            return self.once[node.unit, node.call][node.leaf]
        assert isinstance(node, Result)
        return self.parts(node.operation)[node.leaf]

    def parts(self, operation: Operation) -> list[Tensor]:
        """Return all that an operation before the loop returned."""
        if operation.number >= len(self.before.results):
            raise NotAhead("its input comes from an operation that was not seen")
        return self.before.results[operation.number]

    def ahead(self, unit: str, place: int, leaf: int) -> Timed:
        """Return what a unit returns at every step."""
        track = self.tracks.get((unit, place))
        if track is None:
            raise NotAhead(f"its input comes from {unit!r}, which runs step by step")
        return track.leaf(leaf)

    def length(self, available: int) -> int:
        """Return the number of steps of this run."""
        if self.steps is None:
            self.steps = available or self.layout.steps
        if available and available < self.steps:
            raise NotAhead("its inputs are fewer than the steps of the loop")
        return self.steps


def _input(args: Any, kwargs: Any) -> Any:
    return args[0] if args else next(iter(kwargs.values()), None)
