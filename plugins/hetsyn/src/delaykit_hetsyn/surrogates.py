"""What stands in for a spike's derivative: a slope, given how far the membrane is above the threshold.

A surrogate is called like a function, ``surrogate(membrane - threshold)``: spikes forwards, its slope backwards. The
fused rollout asks for the slope alone, of a whole sequence at once.
"""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

from delaykit import checks


class Surrogate(ABC):
    """A derivative for ``s = [x > 0]``; subclasses are frozen dataclasses."""

    @abstractmethod
    def slope(self, x: Tensor) -> Tensor:
        """Return ds/dx at ``x = membrane - threshold``, elementwise."""

    def __call__(self, x: Tensor) -> Tensor:
        """Return spikes ``[x > 0]`` whose autograd multiplies by :meth:`slope`."""
        return _Spike.apply(x, self)


@checks.annotated
@dataclasses.dataclass(frozen=True)
class TriangularSurrogate(Surrogate):
    """``max(0, 1 - |x| / width)``.

    Args:
        width: distance from the threshold at which the slope vanishes, > 0; the paper takes the threshold itself.

    Example:
        >>> TriangularSurrogate().slope(torch.tensor([-2.0, -0.5, 0.0, 1.0])).tolist()
        [0.0, 0.5, 1.0, 0.0]
    """

    width: float = 1.0

    def __post_init__(self) -> None:
        checks.number("TriangularSurrogate.width", self.width, above=0)

    def slope(self, x: Tensor) -> Tensor:
        return (1.0 - x.abs() / self.width).clamp(min=0.0)


Triangle = TriangularSurrogate  # its former name


@checks.annotated
@dataclasses.dataclass(frozen=True)
class MultiGaussian(Surrogate):
    """A narrow bump between two wide, shallow dips, ``gain [(1 + h) G(x; 0, s) - h G(x; s, w s) - h G(x; -s, w s)]``.

    ``G(x; mean, sd)`` is a normal density.

    Args:
        gain: overall factor.
        height: h, depth of the dips.
        sd: s, standard deviation of the bump and distance of the dips.
        widening: w, how much wider the dips are.

    Example:
        >>> round(float(MultiGaussian().slope(torch.tensor(0.0))), 4)
        0.4391

    Reference:
        Yin, Corradi, Bohte 2021; the defaults are those of Deng et al., "HetSyn", for speech.
    """

    gain: float = 0.5
    height: float = 0.15
    sd: float = 0.5
    widening: float = 6.0

    def __post_init__(self) -> None:
        checks.number("MultiGaussian.sd", self.sd, above=0)
        checks.number("MultiGaussian.widening", self.widening, above=0)

    def slope(self, x: Tensor) -> Tensor:
        wide = self.widening * self.sd
        dips = _normal(x, self.sd, wide) + _normal(x, -self.sd, wide)
        return self.gain * ((1.0 + self.height) * _normal(x, 0.0, self.sd) - self.height * dips)


def _normal(x: Tensor, mean: float, sd: float) -> Tensor:
    return torch.exp(-0.5 * ((x - mean) / sd) ** 2) / (sd * math.sqrt(2.0 * math.pi))


class _Spike(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, surrogate: Surrogate) -> Tensor:
        ctx.save_for_backward(x)
        ctx.surrogate = surrogate
        return (x > 0).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        return grads[0] * ctx.surrogate.slope(x), None
