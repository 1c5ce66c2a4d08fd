"""Where a tensor came from, as one run of a model showed it: arguments, operations, and the units' outputs."""

from __future__ import annotations

import dataclasses
from typing import Any

from torch import Tensor, nn


class Miss(BaseException):
    """What was computed ahead is not what the model asks for; the run is taken back and done step by step.

    Not an ``Exception``, so that a model that catches those does not catch this.

    Args:
        unit: path of the unit whose prediction failed; None where the whole run is to blame.
        reason: why, for the report.
    """

    def __init__(self, unit: str | None, reason: str) -> None:
        super().__init__(unit, reason)
        self.unit, self.reason = unit, reason


class NotAhead(Exception):  # noqa: N818 - an answer, not a fault
    """A unit's inputs cannot be known ahead of its calls; says why."""


@dataclasses.dataclass(frozen=True, eq=False)
class Node:
    """A tensor of the run; compared by identity."""


@dataclasses.dataclass(frozen=True, eq=False)
class Argument(Node):
    """A leaf of the call's arguments."""

    index: int


@dataclasses.dataclass(frozen=True, eq=False)
class Constant(Node):
    """A tensor that was there before the run, and its name in the model: a parameter, a buffer, an attribute."""

    tensor: Tensor
    name: str | None


@dataclasses.dataclass(frozen=True, eq=False)
class Output(Node):
    """A leaf of what the ``call``-th call of a unit returned."""

    unit: str
    call: int
    leaf: int


@dataclasses.dataclass(frozen=True, eq=False)
class Operation:
    """One call of a torch function; tensors among its arguments are nodes.

    Args:
        function: the function.
        args: its arguments.
        kwargs: its named arguments.
        number: how many came before it.
        changes: whether it changes a tensor.
        grad: whether gradients were recorded.
    """

    function: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    number: int
    changes: bool = False
    grad: bool = True


@dataclasses.dataclass(frozen=True, eq=False)
class Result(Node):
    """A leaf of what an operation returned."""

    operation: Operation
    leaf: int


def held_tensors(net: nn.Module) -> dict[str, Tensor]:
    """Return the tensors that a model's modules hold, by name."""
    found = {}
    for path, module in net.named_modules():
        for held in (module.__dict__, module._buffers, module._parameters):
            found.update({f"{path}.{key}": value for key, value in held.items() if isinstance(value, Tensor)})
    return found


def tensor_named(net: nn.Module, name: str) -> Tensor:
    """Return one of them as it is now."""
    path, _, key = name.rpartition(".")
    tensor: Tensor = getattr(net.get_submodule(path), key)
    return tensor


def stops_checkpoint(error: Exception) -> bool:
    """Tell whether ``torch.utils.checkpoint`` ends a run that it repeats, having seen all that it wanted."""
    return type(error).__module__ == "torch.utils.checkpoint"


def told(error: BaseException) -> str:
    """Say in a line what an error of the model is."""
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
