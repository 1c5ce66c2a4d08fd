"""The shape of an arrival: ``h(tau - d)``, how a spike delayed by a real ``d`` is spread over integer steps.

| kernel | h(u), u = tau - d | s, std |
|---|---|---|
| :class:`Linear` | max(0, 1 - abs(u)) | |
| :class:`Triangle` | max(0, s - abs(u)) / s^2 | s = 1 + spread |
| :class:`Gaussian` | exp(-u^2 / (2 std^2)) | std = abs(spread) + 0.27 |
| :class:`Hard` | 1 at round(d) | |

Each kernel says the same thing twice: :meth:`Kernel.response` densely (slow, obvious, the judge) and
:meth:`Kernel.taps` sparsely. Steps ``tau < 0`` do not exist (causality) and are dropped. ``normalize`` divides by the
sum over the steps that are left, plus 1e-7.

Gradients follow ``(s - abs(u)).clamp(min=0)``, which at an integer delay counts both one-sided slopes; with relu they
would be zero there, and a delay that starts at an integer would never learn.
"""

from __future__ import annotations

import dataclasses
import math
import numbers
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

from delaykit import checks
from delaykit.errors import ConfigError, DelayRangeError
from delaykit.functional.event_gradients.rule import whole_taps
from delaykit.functional.inputs import is_dual
from delaykit.functional.second_differences import triangle_taps
from delaykit.functional.taps import Taps, check_causal, check_matrix
from delaykit.functional.tents import OwnTents, Tents
from delaykit.sizes import hold_component_, is_hidden

__all__ = ["GAUSSIAN_FLOOR", "NORMALIZE_EPSILON", "Gaussian", "Hard", "Kernel", "Linear", "Triangle"]

NORMALIZE_EPSILON = 1e-7
GAUSSIAN_FLOOR = 0.27  # DCLS: a gaussian of spread 0 is one step wide
GAUSSIAN_REACH = 9.0  # beyond 9 std a gaussian is < 3e-18 of its peak, below float64 rounding ...
GAUSSIAN_REACH_FLOAT32 = 6.0  # ... and beyond 6 std < 2e-8, below float32 rounding
MAX_DIRECT_RADIUS = 3  # a triangle of up to 7 taps is listed tap by tap, a wider one by second differences


class Kernel(ABC):
    """The impulse response of one delay, dense and sparse."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if cls.__module__ != __name__:
            hold_component_(cls, Kernel)

    @abstractmethod
    def response(self, delays: Tensor, depth: int | None = None) -> Tensor:
        """Write out ``h(tau - d)`` for tau = 0 .. depth - 1, differentiable.

        Args:
            delays: any shape, steps, >= 0.
            depth: steps to return; None: all that the largest delay needs (host sync). It never changes the values.

        Returns:
            Response of shape ``(*delays.shape, depth)``.
        """

    @abstractmethod
    def taps(self, delays: Tensor) -> Taps:
        """List the same response sparsely.

        Args:
            delays: ``(A, B)``, steps, >= 0.

        Returns:
            Taps ``(m, A, B)``; ``m`` depends on the kernel's Python numbers only, never on the delays.

        Raises:
            DelayRangeError: a delay is NaN, infinite or negative.
        """

    def whole(self, delays: Tensor) -> Taps:
        """List one tap at ``round(d)``, whatever the shape: how a spike arrives under ``estimator="exact"``."""
        check_matrix(type(self).__name__, delays)
        return whole_taps(delays)

    def tents(self, delays: Tensor) -> Tents | None:
        """Describe the same response by one width for all delays, where it is a triangle over its width squared.

        Args:
            delays: ``(A, B)``, steps, >= 0.

        Returns:
            None for any other response, and unless a kernel says otherwise.
        """
        return None

    def own_tents(self, delays: Tensor) -> OwnTents | None:
        """Describe the same response by a width for each presynaptic neuron, where it is such a triangle.

        Args:
            delays: ``(post, pre)``, steps, >= 0.

        Returns:
            None for any other response, and unless a kernel says otherwise.
        """
        return None

    @abstractmethod
    def depth(self, max_delay: float) -> int:
        """Count the steps that hold the response, and its derivative, of every delay up to ``max_delay``."""


def check_spread(where: str, kernel: Kernel) -> None:
    """Raise for a spread given as a tensor that is NaN, infinite or, of a triangle, below 0. Host sync.

    Args:
        where: who answered with the kernel, for the message.
        kernel: any; numbers were looked at when it was made.

    Raises:
        DelayRangeError: its spread cannot run.
    """
    spread = getattr(kernel, "spread", None)
    if not isinstance(spread, Tensor) or not spread.numel() or is_hidden(spread):
        return
    low, high = torch.stack(torch.aminmax(spread.detach())).tolist()
    known = -math.inf < low and high < math.inf
    if not known or (low < 0 and isinstance(kernel, Triangle)):
        found = f"a spread of {low:g} steps" if known else "a NaN or infinite spread"
        fix = "bring it back into its bounds in project_() and advance_() of the component"
        raise DelayRangeError(where, found, "finite spreads >= 0", fix)


def _check_response(kernel: Kernel, delays: Tensor, depth: int | None) -> None:
    check_causal(type(kernel).__name__, delays)
    if depth is not None:
        checks.whole(f"{type(kernel).__name__}.response depth", depth, fix="leave depth out to fit the delays")


def _largest(delays: Tensor) -> float:
    return float(delays.detach().max()) if delays.numel() else 0.0


def _column(spread: float | Tensor) -> float | Tensor:
    """Line a spread up with a response, which has tau as an additional last dimension."""
    return spread.unsqueeze(-1) if isinstance(spread, Tensor) and spread.dim() else spread


def _fit(response: Tensor, depth: int | None) -> Tensor:
    """Cut or zero-pad the last dimension."""
    if depth is None or depth == response.shape[-1]:
        return response
    return torch.nn.functional.pad(response, (0, depth - response.shape[-1]))


def _scaled(height: Tensor, dim: int) -> Tensor:
    return height / (height.sum(dim, keepdim=True) + NORMALIZE_EPSILON)


def _around(center: Tensor, radius: int) -> Tensor:
    """List the integers center - radius .. center + radius in a new leading dimension."""
    step = torch.arange(-radius, radius + 1, device=center.device, dtype=center.dtype)
    return center + step.view(-1, *[1] * center.dim())


def _masked(tau: Tensor, value: Tensor, keep: Tensor, center: Tensor) -> Taps:
    """Switch off the taps that are not kept: value 0, no gradient, index of the centre (which a backend may skip)."""
    index = torch.where(keep, tau, center).clamp(min=0).to(torch.int64)
    return Taps(index, torch.where(keep, value, torch.zeros_like(value)))


def _tent_response(delays: Tensor, width: float | Tensor, depth: int | None, normalize: bool) -> Tensor:
    """Write out the triangle of half-width ``width``: clamp(width - abs(u)) / width^2."""
    largest = width.detach().max().item() if isinstance(width, Tensor) else width
    full = max(math.floor(_largest(delays) + largest) + 1, depth or 1)
    tau = torch.arange(full, device=delays.device, dtype=delays.dtype)
    column = _column(width)
    height = (column - (tau - delays.unsqueeze(-1)).abs()).clamp(min=0)
    return _fit(_scaled(height, -1) if normalize else height / column**2, depth)


def _tent_taps(delays: Tensor, width: float, normalize: bool) -> Taps:
    """List every step under a narrow triangle: with c = round(d), abs(tau - c) <= width + 1/2."""
    fixed = delays.detach()
    center = fixed.round()
    tau = _around(center, math.floor(width + 0.5))
    away = tau - fixed
    rise = width - away.abs()
    keep = (rise >= 0) & (tau >= 0)
    value = torch.where(keep, rise, torch.zeros_like(rise))
    index = torch.where(keep, tau, center).clamp_(min=0).to(torch.int64)
    if delays.requires_grad or (not torch.compiler.is_compiling() and is_dual(delays)):
        # the slopes are known: autograd need not keep the way to them
        value = value + torch.where(keep, away.sign(), torch.zeros_like(away)) * (delays - delays.detach())
    if normalize:
        value = _scaled(value, 0)
    return Taps(index, value if normalize or width == 1 else value / width**2)


@dataclasses.dataclass(frozen=True)
class Linear(Kernel):
    """Share a spike between the two steps next to its arrival: ``h(u) = max(0, 1 - |u|)``.

    Args:
        normalize: divide by the sum over the steps kept, plus 1e-7 (DCLS ``v1``). Without, h already sums to 1.

    Example:
        >>> Linear().response(torch.tensor([1.25])).tolist()
        [[0.0, 0.75, 0.25]]

    Reference:
        Hammouamri et al., ICLR 2024, arXiv 2306.17670, "v1"; without the division it is linear interpolation.
    """

    normalize: bool = False

    def response(self, delays: Tensor, depth: int | None = None) -> Tensor:
        """Write out the response; see :meth:`Kernel.response`."""
        _check_response(self, delays, depth)
        return _tent_response(delays, 1.0, depth, self.normalize)

    def taps(self, delays: Tensor) -> Taps:
        """List three taps, of which at most two are non-zero; the third carries a gradient at integer delays."""
        check_matrix(type(self).__name__, delays)
        return _tent_taps(delays, 1.0, self.normalize)

    def tents(self, delays: Tensor) -> Tents | None:
        """Describe it by its width; see :meth:`Kernel.tents`."""
        check_matrix(type(self).__name__, delays)
        return Tents(delays, 1.0, self, NORMALIZE_EPSILON if self.normalize else None)

    def depth(self, max_delay: float) -> int:
        """Count the steps needed; see :meth:`Kernel.depth`."""
        return math.floor(max_delay + 1) + 1


@dataclasses.dataclass(frozen=True)
class Triangle(Kernel):
    """Spread a spike over a triangle: ``h(u) = max(0, s - |u|) / s^2``, ``s = 1 + spread``.

    Not renormalised unless asked: the published layer does not do it either, and its sum is 1 only for integer ``s``
    and an arrival late enough to be uncut.

    Args:
        spread: sigma in steps, >= 0; a number, or a tensor that broadcasts with the delays and gets its gradient.
        normalize: divide by the sum over the steps kept, plus 1e-7, instead of by s^2 (DCLS ``max``).

    A spread given as a Python number below 2.5 makes ``2 floor(s + 1/2) + 1`` direct taps (3, 5 or 7), a larger one or
    a tensor nine second differences, at most six of them non-zero. ``torch.compile`` thus compiles anew for another
    number, not for another tensor.

    Raises:
        ConfigError: the spread is a number below 0 or not finite.

    Example:
        >>> Triangle(1.0).response(torch.tensor([2.0])).tolist()
        [[0.0, 0.25, 0.5, 0.25, 0.0]]

    Reference:
        Queant et al., DelRec, arXiv 2509.24852.
    """

    spread: float | Tensor
    normalize: bool = False

    def __post_init__(self) -> None:
        known = isinstance(self.spread, (Tensor, numbers.Real)) and not isinstance(self.spread, bool)
        if not known or (not isinstance(self.spread, Tensor) and not 0 <= self.spread < math.inf):
            found, expected = f"{self.spread!r}", "a finite number of steps >= 0"
            raise ConfigError("Triangle(spread)", found, expected, "use Triangle(0.0) for no spread")

    def response(self, delays: Tensor, depth: int | None = None) -> Tensor:
        """Write out the response; see :meth:`Kernel.response`."""
        _check_response(self, delays, depth)
        return _tent_response(delays, 1 + self.spread, depth, self.normalize)

    def taps(self, delays: Tensor) -> Taps:
        """List direct taps for a narrow triangle, else second differences; see the class for how many."""
        check_matrix(type(self).__name__, delays)
        if not isinstance(self.spread, Tensor):
            width = 1.0 + self.spread
            if math.floor(width + 0.5) <= MAX_DIRECT_RADIUS:
                return _tent_taps(delays, width, self.normalize)
            spread = torch.full((), float(self.spread), dtype=torch.float64, device=delays.device)
        else:
            spread = self.spread.double()
        delays, width = torch.broadcast_tensors(delays.double(), 1 + spread)
        return triangle_taps(delays, width, NORMALIZE_EPSILON if self.normalize else None)

    def tents(self, delays: Tensor) -> Tents | None:
        """Describe it by its width where that is one number; see :meth:`Kernel.tents`."""
        check_matrix(type(self).__name__, delays)
        spread = self.spread
        if isinstance(spread, Tensor):
            if spread.requires_grad or spread.numel() != 1 or torch.compiler.is_compiling():
                return None
            spread = float(spread)
        return Tents(delays, 1.0 + spread, self, NORMALIZE_EPSILON if self.normalize else None)

    def own_tents(self, delays: Tensor) -> OwnTents | None:
        """Describe it by the neurons' widths, where the spread is a tensor of them; see :meth:`Kernel.own_tents`."""
        check_matrix(type(self).__name__, delays)
        spread = self.spread
        if not isinstance(spread, Tensor) or self.normalize or torch.compiler.is_compiling():
            return None
        if spread.numel() not in (1, delays.shape[1]) or spread.numel() != spread.shape[-1:].numel():
            return None
        return OwnTents(delays, 1.0 + spread.double().reshape(1, -1).expand(1, delays.shape[1]))

    def depth(self, max_delay: float) -> int:
        """Count the steps needed; see :meth:`Kernel.depth`. Host sync where the spread is a tensor."""
        spread = self.spread.detach().max().item() if isinstance(self.spread, Tensor) else self.spread
        return math.floor(max_delay + 1 + spread) + 1


@dataclasses.dataclass(frozen=True)
class Gaussian(Kernel):
    """Spread a spike over a gaussian: ``h(u) = exp(-u^2 / (2 std^2))``, ``std = |spread| + 0.27``.

    Args:
        spread: in steps; a number, or a tensor that broadcasts with the delays and gets its gradient.
        normalize: divide by the sum over the window, plus 1e-7.
        window: the response lives in tau = 0 .. window - 1; None: ceil(largest delay + 5 std) + 1, which reads the
            delays back (host sync; give the window under ``torch.compile``).

    A spread given as a Python number makes at most ``2 ceil(9 std) + 1`` taps (6 std in float32), a tensor
    ``window`` taps.

    Raises:
        ConfigError: the spread is not finite or the window is not positive.

    Example:
        >>> Gaussian(0.0, window=3).response(torch.tensor([1.0])).sum().item()
        1.0

    Reference:
        Hammouamri et al., ICLR 2024, arXiv 2306.17670.
    """

    spread: float | Tensor
    normalize: bool = True
    window: int | None = None

    def __post_init__(self) -> None:
        known = isinstance(self.spread, (Tensor, numbers.Real)) and not isinstance(self.spread, bool)
        if not known or (not isinstance(self.spread, Tensor) and not math.isfinite(self.spread)):
            found, expected = f"{self.spread!r}", "a finite number of steps"
            raise ConfigError("Gaussian(spread)", found, expected, "use Gaussian(0.0) for one step")
        if self.window is not None and self.window < 1:
            found = f"{self.window}"
            raise ConfigError("Gaussian(window)", found, "at least one step", "leave it out to fit the delays")

    def response(self, delays: Tensor, depth: int | None = None) -> Tensor:
        """Write out the response; see :meth:`Kernel.response`."""
        _check_response(self, delays, depth)
        tau = torch.arange(self.depth(_largest(delays)), device=delays.device, dtype=delays.dtype)
        height = self._height(tau - delays.unsqueeze(-1), _column(self.spread))
        return _fit(_scaled(height, -1) if self.normalize else height, depth)

    def taps(self, delays: Tensor) -> Taps:
        """List the steps of the window, or those that precision can tell from 0 where these are fewer."""
        check_matrix(type(self).__name__, delays)
        window = self.depth(_largest(delays)) if self.window is None else self.window
        center = delays.detach().floor().clamp(0, window - 1)
        if isinstance(self.spread, Tensor):
            delays, center, _ = torch.broadcast_tensors(delays, center, self.spread)
            radius = window
        else:
            reach = GAUSSIAN_REACH if delays.dtype == torch.float64 else GAUSSIAN_REACH_FLOAT32
            radius = math.ceil(reach * (abs(self.spread) + GAUSSIAN_FLOOR))
        if 2 * radius + 1 < window:
            tau = _around(center, radius)
        else:
            tau = torch.arange(window).to(center).view(-1, 1, 1).expand(-1, *center.shape)
        keep = (tau >= 0) & (tau < window)
        height = self._height(tau - delays, self.spread)
        height = torch.where(keep, height, torch.zeros_like(height))
        return _masked(tau, _scaled(height, 0) if self.normalize else height, keep, center)

    def depth(self, max_delay: float) -> int:
        """Return the window; see :meth:`Kernel.depth`. Host sync where the spread is a tensor and no window is set."""
        if self.window is not None:
            return self.window
        spread = self.spread.detach().abs().max().item() if isinstance(self.spread, Tensor) else abs(self.spread)
        return math.ceil(max_delay + 5 * (spread + GAUSSIAN_FLOOR)) + 1

    @staticmethod
    def _height(offset: Tensor, spread: float | Tensor) -> Tensor:
        std = (spread.abs() if isinstance(spread, Tensor) else abs(spread)) + GAUSSIAN_FLOOR
        return torch.exp(-(offset**2) / (2 * std**2))


@dataclasses.dataclass(frozen=True)
class Hard(Kernel):
    """Let a spike arrive whole at ``round(d)``: what hardware runs. The delay gets no gradient.

    Example:
        >>> Hard().response(torch.tensor([1.8])).tolist()
        [[0.0, 0.0, 1.0]]
    """

    def response(self, delays: Tensor, depth: int | None = None) -> Tensor:
        """Write out the response; see :meth:`Kernel.response`."""
        _check_response(self, delays, depth)
        tau = torch.arange(self.depth(_largest(delays)) if depth is None else depth, device=delays.device)
        return (tau == delays.detach().round().unsqueeze(-1)).to(delays.dtype)

    def taps(self, delays: Tensor) -> Taps:
        """List one tap of value 1."""
        check_matrix(type(self).__name__, delays)
        center = delays.detach().round().unsqueeze(0)
        return _masked(center, torch.ones_like(center), center >= 0, center)

    def tents(self, delays: Tensor) -> Tents | None:
        """Describe it by the narrowest triangle at whole delays; see :meth:`Kernel.tents`."""
        check_matrix(type(self).__name__, delays)
        return Tents(delays.detach().round(), 1.0, self)

    def depth(self, max_delay: float) -> int:
        """Count the steps needed; see :meth:`Kernel.depth`."""
        return round(max_delay) + 1
