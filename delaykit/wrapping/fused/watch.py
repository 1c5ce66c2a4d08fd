"""One run of a model by its own loop, watched: every unit call, and what its inputs were made of."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from delaykit.attaching.batch.tensors import tensors_in
from delaykit.functional.engine_base import version_of
from delaykit.wrapping.fused.graph import (
    Argument,
    Constant,
    Node,
    Operation,
    Output,
    Result,
    held_tensors,
)
from delaykit.wrapping.fused.units import Unit

Forward = Callable[..., Any]
IN_PLACE = ("__setitem__", "__set__", "__iadd__", "__isub__", "__imul__", "__itruediv__", "__iand__", "__ior__")
HOOKS = (Tensor.register_hook, Tensor.retain_grad)


@dataclasses.dataclass
class UnitCall:
    """One call of a unit: the node of its input, and how many operations came before."""

    input: Node | None
    operations: int


@dataclasses.dataclass
class Seen:
    """What a run showed."""

    calls: dict[str, list[UnitCall]] = dataclasses.field(default_factory=dict)
    edited: set[str] = dataclasses.field(default_factory=set)  # units whose outputs were changed in place
    hooked: set[Node] = dataclasses.field(default_factory=set)  # whose gradients somebody looks at, or changes
    functions: list[Any] = dataclasses.field(default_factory=list)  # of the operations, in order
    failed: bool = False  # whether a unit raised


@contextlib.contextmanager
def answering(forwards: dict[nn.Module, Forward]) -> Iterator[None]:
    """Let modules answer by other functions, for as long as the block lasts."""
    for module, forward in forwards.items():
        module.__dict__["forward"] = forward
    try:
        yield
    finally:
        for module in forwards:
            module.__dict__.pop("forward", None)


def in_place(function: Any, kwargs: Any) -> bool:
    """Tell whether a torch function changes its first argument."""
    name = getattr(function, "__name__", "")
    return name in IN_PLACE or (name.endswith("_") and not name.endswith("__")) or (kwargs or {}).get("out") is not None


def _place(tensor: Tensor) -> int:
    """Return where a tensor's memory begins, which its views share."""
    return tensor.untyped_storage().data_ptr() if tensor.layout is torch.strided and tensor.numel() else -1


def _keeps_statistics(function: Any, args: Any, kwargs: Any) -> bool:
    """Tell whether this is a normalisation by the batch's own statistics, which may keep running ones."""
    place = {"batch_norm": ("training", 5, False), "instance_norm": ("use_input_stats", 5, True)}.get(
        getattr(function, "__name__", "")
    )
    if place is None:
        return False
    name, position, default = place
    return bool(args[position] if len(args) > position else kwargs.get(name, default))


class Watch(TorchFunctionMode):
    """Records what every tensor of a run was made of.

    Args:
        units: the units by path.
        arguments: leaves of the call's arguments.
        held: the tensors that the model holds, by name.
    """

    def __init__(self, units: dict[str, Unit], arguments: list[Any], held: dict[str, Tensor]) -> None:
        super().__init__()
        self.units, self.seen = units, Seen()
        self._origin: dict[int, Node] = {id(x): Constant(x, name) for name, x in held.items()}
        self._alive: list[Any] = list(arguments)  # a tensor's id is its own only while it lives
        self._inside = 0
        self._lies_in: dict[int, set[str]] = {}  # units whose outputs lie in a piece of memory
        for index, leaf in enumerate(arguments):
            if isinstance(leaf, Tensor):
                self._origin[id(leaf)] = Argument(index)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self._inside:
            return func(*args, **(kwargs or {}))
        given = tensors_in((args, kwargs))
        versions = [version_of(x) for x in given]
        if func in HOOKS:
            self.seen.hooked.add(self.node(args[0]))
        self._inside += 1
        try:
            output = func(*args, **(kwargs or {}))
        finally:
            self._inside -= 1
        leaves = tensors_in(output)
        if leaves or in_place(func, kwargs):
            changes = versions != [version_of(x) for x in given] or _keeps_statistics(func, args, kwargs or {})
            self._note(func, args, kwargs or {}, leaves, changes)
        return output

    def _note(self, func: Any, args: Any, kwargs: Any, leaves: list[Tensor], changes: bool) -> None:
        given_args, given_kwargs = self.nodes(args), self.nodes(kwargs)
        number, grad = len(self.seen.functions), torch.is_grad_enabled()
        operation = Operation(func, given_args, given_kwargs, number, changes, grad)
        self.seen.functions.append(func)
        results = [Result(operation, leaf) for leaf in range(len(leaves))]
        if in_place(func, kwargs):
            changed = [x for x in (*args[:1], kwargs.get("out")) if isinstance(x, Tensor)]
            for tensor in changed:
                self.seen.edited |= self._lies_in.get(_place(tensor), set())
        for tensor, node in zip(leaves, results, strict=True):
            self._keep(tensor, node)

    def nodes(self, values: Any) -> Any:
        """Put nodes in the place of tensors."""
        return tree_map(lambda v: self.node(v) if isinstance(v, Tensor) else v, values)

    def node(self, tensor: Tensor) -> Node:
        """Return where a tensor came from."""
        found = self._origin.get(id(tensor))
        if isinstance(found, Result) and isinstance(tensor.grad_fn, BackwardCFunction):
            found = None  # its operations are those within an autograd.Function, which has gradients of its own
        if found is None:
            found = Constant(tensor, None)
            self._keep(tensor, found)
        return found

    def _keep(self, tensor: Tensor, node: Node) -> None:
        self._origin[id(tensor)] = node
        self._alive.append(tensor)

    def spies(self) -> dict[nn.Module, Forward]:
        """Make the forwards that note a unit's calls and run it as ever."""
        return {unit.module: self._spy(path, unit.module.forward) for path, unit in self.units.items()}

    def _spy(self, path: str, forward: Forward) -> Forward:
        calls = self.seen.calls.setdefault(path, [])

        def spy(*args: Any, **kwargs: Any) -> Any:
            if self._inside:
                return forward(*args, **kwargs)
            given = next((v for v in (*args, *kwargs.values()) if isinstance(v, Tensor)), None)
            number = len(calls)
            calls.append(UnitCall(None if given is None else self.node(given), len(self.seen.functions)))
            self._inside += 1
            try:
                output = forward(*args, **kwargs)
            except Exception:
                self.seen.failed = True
                raise
            finally:
                self._inside -= 1
            kept: set[int] = set()  # one tensor may be the output and part of the state
            for leaf, tensor in enumerate(tensors_in(output)):
                if id(tensor) not in kept:
                    self._keep(tensor, Output(path, number, leaf))
                    self._lies_in.setdefault(_place(tensor), set()).add(path)
                kept.add(id(tensor))
            return output

        return spy


def watch(net: nn.Module, units: dict[str, Unit], arguments: list[Any], run: Callable[[], Any]) -> tuple[Seen, Any]:
    """Run a model by its own loop; return what was seen, and what it returned."""
    watcher = Watch(units, arguments, held_tensors(net))
    with torch.enable_grad(), answering(watcher.spies()), watcher:
        output = run()
    return watcher.seen, output
