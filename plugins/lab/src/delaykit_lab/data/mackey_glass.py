"""The Mackey-Glass series: a delay equation whose future depends on what was tau time units ago. Needs no download."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from delaykit import ConfigError

STEPS_A_UNIT = 10  # Runge-Kutta steps in one unit of time


def mackey_glass(
    length: int, tau: float = 17.0, generator: torch.Generator | None = None, transient: int = 500
) -> Tensor:
    """Integrate ``x'(t) = 0.2 x(t - tau) / (1 + x(t - tau)^10) - 0.1 x(t)`` and sample it once a unit of time.

    Fourth-order Runge-Kutta with ten steps a unit; the delayed value between two steps is interpolated linearly. The
    past before the start is 1.2 plus uniform noise in [-0.1, 0.1].

    Args:
        length: number of samples, >= 1.
        tau: delay in units of time, >= 1; 17 is mildly chaotic.
        generator: draws the past.
        transient: units of time that are left out at the start.

    Returns:
        ``(length,)``, float64.

    Raises:
        ConfigError: a number is out of range.

    Example:
        >>> series = mackey_glass(200, generator=torch.Generator().manual_seed(0))
        >>> bool((series > 0.2).all() and (series < 1.4).all())
        True

    Reference: Mackey and Glass 1977, Science 197, 287-289.
    """
    if length < 1 or transient < 0 or not (math.isfinite(tau) and tau >= 1):
        found = f"length={length}, tau={tau}, transient={transient}"
        raise ConfigError("mackey_glass", found, "length >= 1, tau >= 1 and transient >= 0", "correct these numbers")
    step = 1.0 / STEPS_A_UNIT
    lag = math.ceil(tau * STEPS_A_UNIT)
    past = 1.2 + 0.2 * (torch.rand(lag + 1, generator=generator, dtype=torch.float64) - 0.5)
    values = past.tolist()
    share = lag - tau * STEPS_A_UNIT  # the delayed instant lies this far behind a whole step

    def slope(x: float, delayed: float) -> float:
        return 0.2 * delayed / (1.0 + delayed**10) - 0.1 * x

    for _ in range((length + transient) * STEPS_A_UNIT):
        x, oldest = values[-1], len(values) - 1 - lag
        first = values[oldest] + share * (values[oldest + 1] - values[oldest])
        second_end = values[min(oldest + 2, len(values) - 1)]
        last = values[oldest + 1] + share * (second_end - values[oldest + 1])
        middle = 0.5 * (first + last)
        k1 = slope(x, first)
        k2 = slope(x + 0.5 * step * k1, middle)
        k3 = slope(x + 0.5 * step * k2, middle)
        k4 = slope(x + step * k3, last)
        values.append(x + step * (k1 + 2 * k2 + 2 * k3 + k4) / 6)
    samples = torch.tensor(values[lag + 1 :], dtype=torch.float64)
    return samples[STEPS_A_UNIT - 1 :: STEPS_A_UNIT][transient:]
