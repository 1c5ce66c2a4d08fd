"""Sizes that parts must have: parameters those that they were made with, answers of methods those they promise."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from delaykit import checks
from delaykit.errors import PluginError, ShapeError

SIZES = "_dk_sizes"
MEND = "mend this method of the component"
ONE_A_SYNAPSE = "(1, 1), (1, pre), (post, 1) or (post, pre)"


def remember_sizes_(part: nn.Module) -> None:
    """Write down the sizes of a part's parameters, for :func:`check_sizes`.

    Args:
        part: a delay, a heterogeneity or decays.
    """
    named = part.named_parameters(remove_duplicate=False)
    part.__dict__[SIZES] = {name: (p.shape, p.is_floating_point()) for name, p in named}


def check_sizes(where: str, part: nn.Module) -> None:
    """Refuse a part one of whose parameters was taken out, or replaced by one of another size or kind.

    Args:
        where: the connection or neuron that the part belongs to.
        part: what :func:`remember_sizes_` saw; any other is let through.

    Raises:
        ShapeError: with the parameter's name, its size, and the one that it was made with.

    Example:
        >>> part = nn.Linear(2, 3)
        >>> remember_sizes_(part)
        >>> part.bias = nn.Parameter(torch.zeros(4))
        >>> check_sizes("fc1", part)
        Traceback (most recent call last):
        delaykit.errors.ShapeError: fc1: found parameter bias of shape (4,), torch.float32; expected one of shape ...
    """
    if torch.compiler.is_compiling():  # a graph is guarded by the sizes it was made for
        return
    for name, (shape, floating) in part.__dict__.get(SIZES, {}).items():
        value = part
        for step in name.split("."):  # not by _parameters: a parametrized one is computed
            value = getattr(value, step, None)  # type: ignore[assignment]
        if isinstance(value, Tensor) and value.shape == shape and value.is_floating_point() == floating:
            continue
        found = f"parameter {name} of type {type(value).__name__}"
        if value is None:
            found = f"no parameter {name}"
        elif isinstance(value, Tensor):
            found = f"parameter {name} of shape {tuple(value.shape)}, {value.dtype}"
        expected = f"one of shape {tuple(shape)}, {'floating point' if floating else 'whole numbers'}, as it was made"
        fix = "write new values into it, with torch.no_grad(): parameter.copy_(values); for another size, unwrap the "
        fix += "model and wrap it again"
        raise ShapeError(where, found, expected, fix)


def numbers_of(part: nn.Module, method: str, answer: Any, expected: str) -> Tensor:
    """Return what a method of a part answered, a tensor of real numbers with as many dimensions as its shape says.

    Args:
        part: a delay or a heterogeneity.
        method: name of its method.
        answer: what it answered.
        expected: shapes in words, the first in parentheses.

    Raises:
        PluginError: it is no tensor, or one of other numbers.
        ShapeError: it has another number of dimensions.
    """
    where = f"{type(part).__name__}.{method}()"
    if not isinstance(answer, Tensor) or answer.is_complex() or answer.dtype == torch.bool:
        found = f"a tensor of {answer.dtype}" if isinstance(answer, Tensor) else checks.shown(answer)
        raise PluginError(where, found, f"a tensor of real numbers, {expected}", MEND)
    if answer.ndim != expected.partition(")")[0].count(",") + 1:
        fix = "reshape, so that pre and post cannot be taken for each other"
        raise ShapeError(where, f"shape {tuple(answer.shape)}", expected, fix)
    return answer
