"""What every operator asks of its tensors: dense ones that hold numbers, and a graph that it can be part of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.autograd import forward_ad

from delaykit import checks
from delaykit.errors import ConfigError, HistoryError, ShapeError
from delaykit.functional.dispatch import wants_reference

FORWARD = "forward-mode differentiation"
FUNCTORCH = {"Vmap": "torch.func.vmap", "Grad": "torch.func.grad", "Jvp": FORWARD}


def check_tensors(where: str, *, floating: bool = True, optional: Sequence[str] = (), **tensors: Tensor | None) -> None:
    """Refuse what an operator cannot read: no tensors, nested or sparse ones, and those without numbers.

    Args:
        where: the operator or the connection.
        floating: whether they have to be floating point.
        optional: names of those that may be None.
        **tensors: by the name that the caller knows them by.

    Raises:
        ShapeError: one of them is nothing to compute with.

    Example:
        >>> check_tensors("delay_line", x=[1.0])
        Traceback (most recent call last):
        delaykit.errors.ShapeError: delay_line: found x of type list; expected a tensor. To go on: ...
    """
    for name, tensor in tensors.items():
        if isinstance(tensor, Tensor):
            if tensor.is_nested or tensor.is_meta or tensor.layout is not torch.strided:
                _refuse(where, name, tensor)
            if floating and not tensor.is_floating_point():
                fix = f"convert it with {name}.float()"
                raise ShapeError(where, f"{name} of dtype {tensor.dtype}", "a floating point tensor", fix)
        elif tensor is not None or name not in optional:
            found, fix = f"{name} of type {type(tensor).__name__}", f"pass torch.as_tensor({name})"
            raise ShapeError(where, found, "a tensor", fix)


def _refuse(where: str, name: str, tensor: Tensor) -> NoReturn:
    if tensor.is_nested:
        fix = "pad the sequences, e.g. with torch.nn.utils.rnn.pad_sequence"
        raise ShapeError(where, f"{name}, a nested tensor", "a dense tensor", fix)
    if tensor.is_meta:
        fix = "make it on a device; a model built on meta first needs to_empty(device=...) and its checkpoint"
        raise ShapeError(where, f"{name} on the meta device, which holds no numbers", "a tensor with numbers", fix)
    raise ShapeError(where, f"{name}, a sparse tensor", "a dense tensor", f"call {name}.to_dense()")


def refuse_transforms(where: str, *tensors: Tensor | None, remembers: bool = False) -> None:
    """Refuse ``torch.func`` around what differentiates by hand, or remembers: torch itself says so in other words.

    Operators under the reference backend are plain torch and take part in everything; ``vmap`` maps any operator.

    Args:
        where: the operator or the connection.
        *tensors: what it was called with.
        remembers: whether a call is one time step, whose spikes are written down.

    Raises:
        HistoryError: a transform is under way that cannot pass through here.
    """
    if torch.compiler.is_compiling():
        return
    inside = torch._C._functorch.peek_interpreter_stack() is not None
    if not inside and forward_ad._current_level < 0:  # the rule, asked at every step
        return
    if not remembers and wants_reference():
        return
    found = ""
    if inside:
        kinds = [level.key().name for level in torch._C._functorch.get_interpreter_stack() or ()]
        found = next((FUNCTORCH[kind] for kind in kinds if kind in FUNCTORCH and (remembers or kind != "Vmap")), "")
    elif forward_ad._current_level >= 0 and any(t is not None and is_dual(t) for t in tensors):
        found = FORWARD
    if found and remembers:
        fix = "take gradients with torch.autograd.grad, and give vmap's dimension to the batch"
        raise HistoryError(where, f"a time step under {found}", "plain calls: a delay line remembers its input", fix)
    if found:
        fix = "take gradients with torch.autograd.grad, or run it under dk.backend('reference')"
        raise HistoryError(where, found, "plain autograd: its adjoint is written by hand", fix)


def is_dual(tensor: Tensor) -> bool:
    """Tell whether a tensor has a tangent: forward-mode automatic differentiation."""
    return forward_ad.unpack_dual(tensor).tangent is not None


def check_operands(where: str, *, optional: Sequence[str] = (), **tensors: Tensor | None) -> None:
    """Check the tensors of an operator with an adjoint of its own: what they are, and who differentiates.

    Args:
        where: the operator.
        optional: names of those that may be None.
        **tensors: by the name that the caller knows them by.

    Raises:
        ShapeError: see :func:`check_tensors`.
        HistoryError: see :func:`refuse_transforms`.
    """
    check_tensors(where, floating=True, optional=optional, **tensors)
    refuse_transforms(where, *tensors.values())


def initial_values(where: str, value: Any, words: Sequence[str]) -> Any:
    """Return initial values as JSON holds them: a word, a number, or nested lists of numbers.

    Args:
        where: name of the field.
        value: one of these, or what numpy and torch make of one.
        words: for the message; whether a word is one of them is not looked at.

    Raises:
        ConfigError: something else, or numbers without values, such as those of a meta tensor.

    Example:
        >>> initial_values("FreeDelay.init", torch.tensor([1.5, 2.0]), ("uniform",))
        [1.5, 2.0]
    """
    if isinstance(value, (str, float)) or (type(value) is int and abs(value) < 2**63):
        return value
    try:
        given = torch.as_tensor(value)
        sound = given.layout is torch.strided and not (given.is_meta or given.is_nested or given.is_complex())
        if not sound or given.dtype == torch.bool:
            raise TypeError
        exact = given if isinstance(value, Tensor) else torch.as_tensor(value, dtype=torch.float64)
        return exact.detach().tolist()
    except (TypeError, ValueError, RuntimeError, OverflowError):
        expected = f"one of {', '.join(words)}, a number or a nested list"
        raise ConfigError(where, checks.shown(value), expected, f"pass e.g. {words[0]!r}") from None


def as_it_is(parameter: Tensor) -> Tensor:
    """Return a view of a parameter, for the graph to keep as it is now.

    Of a leaf autograd keeps the leaf itself, and reads it when the gradient is made: another tensor that was put into
    it by then (``weight.data = ...``) would count, in silence. What is written in place is refused through a view, too.

    Example:
        >>> weight = torch.ones(1, requires_grad=True)
        >>> view = as_it_is(weight)
        >>> weight.data = torch.zeros(1)
        >>> view.tolist()
        [1.0]
    """
    return parameter.view_as(parameter) if parameter.is_leaf and torch.is_grad_enabled() else parameter
