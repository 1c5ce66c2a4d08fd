"""The proof of a run ahead: outputs and every gradient against the model's own loop, on a copy in float64."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

from delaykit.attaching.batch.rows import Rows
from delaykit.attaching.batch.tensors import tensors_in
from delaykit.attaching.history.connection_states import AheadState
from delaykit.attaching.trial_runs import lines_aside
from delaykit.attaching.wiring import wiring_of
from delaykit.functional.dispatch import backend, chosen
from delaykit.functional.engine_base import version_of
from delaykit.planning.snapshot import Snapshot
from delaykit.wrapping.apply import copy_model
from delaykit.wrapping.fused.graph import Miss, NotAhead, Output, told
from delaykit.wrapping.fused.program import Program, own_loop
from delaykit.wrapping.fused.recipe import Comparison, loop_of
from delaykit.wrapping.fused.run import Layout, Run
from delaykit.wrapping.fused.tracks import GOES_ON
from delaykit.wrapping.fused.units import ConnectionUnit, NeuronUnit, Unit, units_of
from delaykit.wrapping.fused.watch import Seen, watch

USED_ONCE = (Rows, AheadState)  # states that no second run can begin with
Values = list[tuple[str, Tensor | None]]
TOLERANCE = {torch.float64: 1e-8, torch.float32: 1e-3}


class _Doubled(TorchFunctionMode):
    """Lets code that asks for float32 by name have float64."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.float:
            return args[0].double()
        swap = [torch.float64 if a is torch.float32 else a for a in args] if type(args) is tuple else args
        named = {k: torch.float64 if v is torch.float32 else v for k, v in (kwargs or {}).items()}
        return func(*swap, **named)


@contextlib.contextmanager
def in_double() -> Iterator[None]:
    """Compute in float64, whatever the model's code asks for."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with _Doubled(), uncompiled():
            yield
    finally:
        torch.set_default_dtype(before)


def uncompiled() -> contextlib.AbstractContextManager[None]:
    """Run operators in plain torch, unless somebody chose a backend.

    What is looked at here is what each layer computes when, and from what. That a backend computes it right is what the
    tests of the operators show, and to compile its kernels once more, for float64, takes longer than all the rest.
    """
    return contextlib.nullcontext() if chosen() else backend("torch")


def learn(net: nn.Module, program: Program, args: Any, kwargs: Any) -> tuple[Layout, str]:
    """Watch a model's own loop, and prove what can run ahead.

    Args:
        net: the model; it is left as it was.
        program: how it is run over a sequence.
        args: arguments of one call.
        kwargs: named arguments of it.

    Returns:
        What is known, and in which precision it was proven.
    """
    if any(isinstance(leaf, USED_ONCE) for leaf in tree_leaves((args, kwargs))):
        return Layout(None, 0, [], {}, dict.fromkeys(units_of(net), GOES_ON)), "its own precision"
    for asks in (True, False):  # a model may write into its arguments, which those that ask for a gradient forbid
        with contextlib.suppress(Exception):
            trial = Trial(copy_model(net).double(), program, *_apart((args, kwargs), torch.float64, asks))
            with in_double():
                return trial.learn(), "float64"
    with contextlib.suppress(Exception):  # a model that only runs as it is
        return Trial(net, program, *_apart((args, kwargs), None)).learn(), "its own precision"
    return Trial(net, program, *_apart((args, kwargs), None, False)).learn(), "its own precision"


def disprove(net: nn.Module, program: Program, layout: Layout, precision: str, args: Any, kwargs: Any) -> str:
    """Say where a run ahead, as it is known, differs from the model's own loop, or ``""``."""
    if precision != "float64":
        return Trial(net, program, *_apart((args, kwargs), None)).problem(layout)
    trial = Trial(copy_model(net).double(), program, *_apart((args, kwargs), torch.float64))
    with in_double():
        return trial.problem(layout)


class Trial:
    """A model and one set of arguments, on which ways to run it are compared.

    Args:
        net: the model, or a copy of it.
        program: how it is run over a sequence.
        args: arguments.
        kwargs: named arguments.
    """

    def __init__(self, net: nn.Module, program: Program, args: Any, kwargs: Any) -> None:
        self.net, self.before, self.units = net, Snapshot(net), units_of(net)
        self.run, self.arguments = (lambda: program(net, *args, **kwargs)), tree_leaves((args, kwargs))
        self.program = program
        self.wanted: list[Tensor] = [p for p in net.parameters() if p.requires_grad]
        self.wanted += [x for x in self.arguments if isinstance(x, Tensor) and x.requires_grad]

    def watched(self) -> tuple[Seen, Values | None]:
        """Run the model's own loop; no values where a weight changed in it, since nothing of that can run ahead."""
        given = [x for x in self.arguments if isinstance(x, Tensor)]
        versions = [version_of(x) for x in given]
        try:
            with lines_aside(self.net), torch.enable_grad():
                seen, output = watch(self.net, self.units, self.arguments, self.run)
                rewritten = self.before.weights_changed()
                values = None if rewritten else self.values(output)  # a backward pass would meet two weights
            if rewritten or versions != [version_of(x) for x in given]:
                seen.edited |= set(self.units)
            return seen, values
        finally:
            self.before.restore()

    def ahead(self, layout: Layout) -> Values:
        """Run the model ahead."""
        try:
            with lines_aside(self.net), torch.enable_grad():
                return self.values(Run(self.net, layout, self.units, self.arguments)(self.run))
        finally:
            self.before.restore()

    def values(self, output: Any) -> Values:
        """Return what a run has returned and left in the model's buffers, and its gradients."""
        left: Values = [(f"buffer {name!r}", b.detach().clone()) for name, b in self.net.named_buffers()]
        return _values(output, self.wanted) + left

    def learn(self) -> Layout:
        """Watch the model's own loop, and leave out one unit after the other until the run ahead is equal to it."""
        seen, expected = self.watched()
        layout = layout_of(self.units, seen, self.program)
        while (ahead := layout.fused) and expected is not None:
            try:
                problem = difference(expected, self.ahead(layout))
                if not problem:
                    break
                reason, blamed = f"the run ahead was disproved: {problem}", ahead
            except Miss as miss:
                reason, blamed = miss.reason, ahead if miss.unit is None else [miss.unit]
            except Exception as error:
                reason, blamed = f"ahead of time the model fails: {told(error)}", ahead
            layout.reasons |= dict.fromkeys(blamed, reason)
        return layout

    def problem(self, layout: Layout) -> str:
        """Say where a run ahead differs from the model's own loop; one that is given up is equal to it."""
        if not layout.fused:
            return ""
        try:
            expected = self.watched()[1]
            return "" if expected is None else difference(expected, self.ahead(layout))
        except Miss:
            return ""


def layout_of(units: dict[str, Unit], seen: Seen, program: Program) -> Layout:
    """Read off a watched run which units can be foreseen."""
    reasons = {path: unit.obstacle for path, unit in units.items() if unit.obstacle}
    reasons |= dict.fromkeys(seen.edited, "its output, an argument, or a weight of the model is changed in place")
    outputs = (node.unit for node in seen.hooked if isinstance(node, Output))
    reasons |= dict.fromkeys(outputs, "a hook looks at the gradient of its output")
    reasons |= {path: why for path, unit in units.items() if (why := _goes_on(unit, program))}
    found = loop_of(seen.calls)
    if found is None:
        return Layout(None, 0, [], {}, dict.fromkeys(units, "it is not called in a time loop; the model runs as it is"))
    loop, steps = found
    first, second = (1, steps - 1) if steps > 2 else (0, 1)
    comparison, recipes = Comparison(loop, first, second, seen.hooked), {}
    for path, calls in seen.calls.items():
        times = loop.times.get(path)
        if times is None:
            reasons.setdefault(path, f"it is called {len(calls)} times in a run of {steps} steps")
            continue
        try:
            for place in range(times):
                one, two = (calls[step * times + place].input for step in (first, second))
                if one is None or two is None:
                    raise NotAhead("it is called without a tensor")
                recipes[path, place] = comparison.recipe(one, two)
        except NotAhead as why:
            reasons.setdefault(path, str(why))
        except Exception as error:
            reasons.setdefault(path, f"its input cannot be followed: {told(error)}")
    return Layout(loop, steps, seen.functions[: loop.begin], recipes, reasons)


def _goes_on(unit: Unit, program: Program) -> str:
    """Say why the delays of a unit may not begin with a run, or ``""``."""
    if program is not own_loop or not isinstance(unit, (ConnectionUnit, NeuronUnit)):
        return ""
    for module in unit.module.modules():
        wiring = wiring_of(module)
        for attachment in wiring.sites.values() if wiring is not None else ():
            if attachment.timing.policy not in ("root", "carried") and attachment.timing.time_dim is None:
                return "its delays may go on from call to call"
    return ""


def _values(output: Any, wanted: list[Tensor]) -> Values:
    """Return a run's outputs, and the gradients of a sum of them with uneven weights."""
    tensors = tensors_in(output)
    values: Values = [(f"output {k}", x.detach().clone()) for k, x in enumerate(tensors)]
    learned = [x for x in tensors if x.requires_grad and x.is_floating_point()]
    if not learned or not wanted:
        return values
    generator = torch.Generator().manual_seed(0)
    total = sum((x * torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x)).sum() for x in learned)
    assert isinstance(total, Tensor)
    gradients = torch.autograd.grad(total, wanted, allow_unused=True)
    return values + [(f"the gradient of a {tuple(w.shape)} tensor", g) for w, g in zip(wanted, gradients, strict=True)]


def difference(expected: Values, found: Values) -> str:
    """Say where two runs differ by more than rounding, or ``""``."""
    if len(expected) != len(found):
        return f"{len(found)} tensors in place of {len(expected)}"
    for (name, one), (_, two) in zip(expected, found, strict=True):
        if one is None or two is None:
            other = two if one is None else one
            if other is not None and bool(other.any()):
                return f"{name} is there in one of the two runs only"
            continue
        if one.shape != two.shape or one.dtype != two.dtype:
            return f"{name} is {two.dtype} of shape {tuple(two.shape)}, not {one.dtype} of {tuple(one.shape)}"
        if not one.is_floating_point():
            if not torch.equal(one, two):
                return f"{name} differs"
            continue
        scale = max(1.0, float(one.abs().max())) if one.numel() else 1.0
        near = TOLERANCE.get(one.dtype, 1e-2) * scale
        if not torch.allclose(one, two, rtol=0.0, atol=near, equal_nan=True):
            return f"{name} differs by {float((one - two).abs().max()):.2g}"
    return ""


def _apart(values: Any, dtype: torch.dtype | None, asks: bool = True) -> Any:
    """Copy arguments, floating point ones as leaves that ask for a gradient, if ``asks``."""

    def one(leaf: Any) -> Any:
        if isinstance(leaf, Tensor) and leaf.is_floating_point():
            return leaf.detach().clone().to(dtype or leaf.dtype).requires_grad_(asks)
        return leaf.clone() if isinstance(leaf, Tensor) else leaf

    return tree_map(one, values)
