"""Where neurons are before training: a cloud, a line, a circle, two circles, a grid, or given places."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from delaykit import ConfigError, ShapeError

STARTS = ("normal", "line", "circle", "two_circles", "grid")
LEAST_DIMS = {"normal": 1, "line": 1, "circle": 2, "two_circles": 2, "grid": 1}


def place(
    start: str | list[Any], neurons: int, dims: int, scale: float, generator: torch.Generator | None, where: str
) -> Tensor:
    """Return the first positions of one population.

    Args:
        start: ``normal``: N(0, scale^2) in every direction; ``line``: evenly from -scale to scale along the first
            axis; ``circle``: evenly on a circle of radius ``scale`` in the first two axes; ``two_circles``: neurons by
            turns on circles of radius scale / 2 and scale; ``grid``: a cubic lattice from -scale to scale, filled in
            order; or a nested list (neurons, dims).
        neurons: how many.
        dims: number of coordinates, >= 1.
        scale: in the unit of the positions.
        generator: source of the random positions; the other starts draw nothing.
        where: for messages.

    Returns:
        ``(neurons, dims)``.

    Raises:
        ShapeError: given places are of another shape.
        ConfigError: given places are not finite numbers.

    Example:
        >>> place("line", 3, 2, 10.0, None, "input").tolist()
        [[-10.0, 0.0], [0.0, 0.0], [10.0, 0.0]]
    """
    if not isinstance(start, str):
        return given(start, (neurons, dims), where)
    if start == "normal":
        return scale * torch.randn(neurons, dims, generator=generator)
    out = torch.zeros(neurons, dims)
    if start == "line":
        out[:, 0] = torch.linspace(-scale, scale, neurons) if neurons > 1 else 0.0
    elif start == "grid":
        side = 1
        while side**dims < neurons:
            side += 1
        ticks = torch.linspace(-scale, scale, side) if side > 1 else torch.zeros(1)
        out[:] = torch.cartesian_prod(*[ticks] * dims).reshape(-1, dims)[:neurons]
    else:
        radius = torch.full((neurons,), float(scale))
        if start == "two_circles":
            radius[::2] *= 0.5
        angle = torch.arange(neurons) * (2 * math.pi / neurons)
        out[:, 0], out[:, 1] = radius * angle.cos(), radius * angle.sin()
    return out


def given(values: list[Any], shape: tuple[int, int], where: str) -> Tensor:
    """Return given values as a tensor of the wanted shape.

    Raises:
        ShapeError: they are of another shape.
    """
    out = as_table(values, where)
    if out.shape != shape:
        raise ShapeError(where, f"given places of shape {tuple(out.shape)}", f"shape {shape}", "fix init= or pre_init=")
    return out


def as_table(values: Any, where: str) -> Tensor:
    """Return a nested list as a two-dimensional tensor of finite numbers.

    Raises:
        ConfigError: it is none.
    """
    expected = f"one of {', '.join(STARTS)}, or a nested list of finite numbers, one row a neuron"
    try:
        out = torch.as_tensor(values, dtype=torch.get_default_dtype())
    except (TypeError, ValueError, RuntimeError, OverflowError):
        raise ConfigError(where, repr(values)[:80], expected, "give such positions, or name a start") from None
    if out.ndim != 2 or not bool(torch.isfinite(out).all()):
        found = f"a table of shape {tuple(out.shape)}" if out.ndim != 2 else "NaN or infinite places"
        raise ConfigError(where, found, expected, "give such positions, or name a start")
    return out
