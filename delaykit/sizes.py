"""Parameters keep the sizes that they were made with: another one in the place of one is told, and never runs."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from delaykit.errors import ShapeError

SIZES = "_dk_sizes"


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
