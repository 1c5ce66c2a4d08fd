"""Whole delays: straight-through and stochastic rounding, and what rounding costs a trained net."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

import delaykit as dk
from delaykit import checks


def straight_through(delays: Tensor, max_delay: float) -> Tensor:
    """Round to the nearest whole step forward; backward, the gradient is the real delay's.

    Args:
        delays: any shape, steps, in [0, max_delay].
        max_delay: a rounded delay above it is the largest whole step below it.
    """
    return _passed_through(delays, delays.detach().round(), max_delay)


def stochastic(delays: Tensor, max_delay: float, draw: Tensor | None = None) -> Tensor:
    """Round up with the probability of the fraction, drawn from torch's generator, so that the mean is the real delay.

    Args:
        delays: any shape, steps, in [0, max_delay].
        max_delay: as for :func:`straight_through`.
        draw: numbers in [0, 1) of the same shape; None: drawn now.
    """
    exact = delays.detach()
    draw = torch.rand_like(exact) if draw is None else draw
    return _passed_through(delays, (exact + draw).floor(), max_delay)


def _passed_through(delays: Tensor, whole: Tensor, max_delay: float) -> Tensor:
    return delays + (whole.clamp(max=math.floor(max_delay)) - delays.detach())


class Gap(NamedTuple):
    """What rounding the delays costs.

    Args:
        continuous: score at the present, real-valued delays and spread.
        integer: score at whole delays and spread 0.
    """

    continuous: float
    integer: float

    @property
    def gap(self) -> float:
        """Score lost by rounding; negative where rounding helped."""
        return self.continuous - self.integer

    def __str__(self) -> str:
        return f"continuous {self.continuous:.4f}, integer {self.integer:.4f}, gap {self.gap:+.4f}"


@checks.annotated
def discretization_gap(net: nn.Module, score: Callable[[nn.Module], float]) -> Gap:
    """Score a wrapped net as it is, and with whole delays and no spread; the real delays come back afterwards.

    Args:
        net: a wrapped net.
        score: its quality on data that are not the test set, e.g. validation accuracy; called in evaluation mode,
            without gradients.

    Example:
        >>> net = dk.wrap_(nn.Sequential(nn.Linear(1, 1)), {"0": dk.At(dk.FreeDelay(init=1.6), reset="manual")})
        >>> gap = discretization_gap(net, lambda net: float(net[0].dk.delay.delay))
        >>> print(gap)
        continuous 1.6000, integer 2.0000, gap -0.4000
    """
    with _evaluating(net):
        continuous = score(net)
        with dk.discretized(net):
            return Gap(float(continuous), float(score(net)))


@contextlib.contextmanager
def _evaluating(net: nn.Module) -> Iterator[None]:
    training = [module for module in net.modules() if module.training]
    net.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module in training:
            module.training = True
