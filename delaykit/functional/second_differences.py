"""Wide triangles by their kinks: six numbers, whatever the spread.

``h(u) = max(0, s - |u|) = relu(u + s) - 2 relu(u) + relu(u - s)`` has kinks at ``u = -s, 0, s``, and the second
difference of a relu on integers is a tent of width 1 around its kink: two numbers, or one where the kink is an integer.
Two running sums over time bring the triangle back.
"""

from __future__ import annotations

import torch
from torch import Tensor

from delaykit.functional.taps import Taps

SLOPES = (1.0, -2.0, 1.0)  # change of slope at each kink
SHIFTS = (-1.0, 0.0, 1.0)  # what widening the triangle by 1 does to each kink
TIES = (1.0, 0.5, 0.0)  # at an integer kink: share of the slope before it, as (s - abs(u)).clamp(min=0) has it


def triangle_taps(delays: Tensor, width: Tensor, epsilon: float | None) -> Taps:
    """List the second differences of a triangle that is cut off at tau < 0.

    Args:
        delays: float64 ``(A, B)``, steps, >= 0.
        width: float64 ``(A, B)``, half-width s >= 1.
        epsilon: None divides by s^2; a number by the sum of the cut triangle plus this number.

    Returns:
        Nine taps of order 2, at most six of them non-zero: three places around each kink.
    """
    with torch.no_grad():
        index, value, by_delay, by_width = _around_kinks(delays, width)
        used = (value != 0) | (by_delay != 0) | (by_width != 0)
        index = torch.where(used, index, delays.round() + 1).clamp(min=0)
    # the slopes are known: autograd need not keep the way to them
    if delays.requires_grad:
        value = value + by_delay * (delays - delays.detach())
    if width.requires_grad:
        value = value + by_width * (width - width.detach())
    if epsilon is None:
        return Taps(index.long(), value / width**2, 2)
    # the sum of a twice-running sum is half the second moment, as the zeroth and the first vanish
    area = (value * (index - delays.detach().round()) ** 2).sum(0) / 2
    return Taps(index.long(), value / (area + epsilon), 2)


def _around_kinks(delays: Tensor, width: Tensor) -> tuple[Tensor, ...]:
    """Place, value and slopes (by delay, by width) of each second difference, ``(9, A, B)`` each."""

    def per_kink(numbers: tuple[float, ...]) -> Tensor:
        return torch.tensor(numbers, dtype=delays.dtype, device=delays.device).view(3, 1, 1)

    slope, shift = per_kink(SLOPES), per_kink(SHIFTS)
    left, middle, right = nearest = (delays + shift * width).round()
    # how far each kink lies past its nearest integer, rounded just as s - abs(tau - d) is, so that ties agree
    past = torch.stack([(delays - left) - width, delays - middle, width - (right - delays)])
    before = torch.where(past == 0, per_kink(TIES), (past < 0).to(past.dtype))
    index = torch.stack([nearest, nearest + 1, nearest + 2])  # (3 places, 3 kinks, A, B)
    value = torch.stack([(-past).clamp(min=0), 1 - past.abs(), past.clamp(min=0)]) * slope
    by_delay = torch.stack([before, 1 - 2 * before, before - 1]) * -slope

    # Causality: where the left kink is cut off, h[0] and h[1] - 2 h[0] at tau = 0 and 1 stand for what came before.
    cut = left <= 0
    keep = ~cut | (index >= 2)
    value, by_delay = value * keep, by_delay * keep
    by_width = by_delay * shift
    for place, edge in enumerate(_edge(delays, width)):
        index[place, 0] = torch.where(cut, torch.full_like(delays, place), index[place, 0])
        for all_of, number in zip((value, by_delay, by_width), edge, strict=True):
            all_of[place, 0] = torch.where(cut, number, all_of[place, 0])
    return tuple(numbers.flatten(0, 1) for numbers in (index, value, by_delay, by_width))


def _edge(delays: Tensor, width: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Second differences at tau = 0 and 1 of a triangle that is already up there, with their slopes."""
    at_zero, at_one = _height(0, delays, width), _height(1, delays, width)
    return at_zero, tuple(one - 2 * zero for zero, one in zip(at_zero, at_one, strict=True))


def _height(tau: int, delays: Tensor, width: Tensor) -> tuple[Tensor, ...]:
    """Height of the triangle at ``tau``, and its slopes by delay and by width."""
    away = tau - delays
    height = width - away.abs()
    inside = (height >= 0).to(height.dtype)
    return height.clamp(min=0), away.sign() * inside, inside
