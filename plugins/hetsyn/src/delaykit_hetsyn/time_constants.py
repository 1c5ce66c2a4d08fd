"""Where time constants come from: one number for all, or a draw for each synapse or neuron.

A distribution is plain data, so that it can be written down in JSON:

| | |
|---|---|
| ``20.0`` | all equal |
| ``("normal", mean, sd)`` | a normal draw, repeated until it is at least 1 ms |
| ``("uniform", low, high)`` | |
| ``("lognormal", median, sigma)`` | ``median exp(sigma n)``, n standard normal |

All in ms; a decay a step is ``exp(-dt / tau)``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from delaykit import checks
from delaykit.errors import ConfigError

SHORTEST_MS = 1.0  # where a normal draw is truncated
Taus = float | Sequence[str | float]


@checks.annotated
def draw(taus: Taus, shape: tuple[int, ...], generator: torch.Generator | None = None) -> Tensor:
    """Draw time constants.

    Args:
        taus: see the module.
        shape: of the result.
        generator: source of the draws.

    Returns:
        Time constants in ms.

    Raises:
        ConfigError: no such distribution, or parameters that make no sense.

    Example:
        >>> draw(("uniform", 5.0, 5.0), (2,)).tolist()
        [5.0, 5.0]
    """
    kind, a, b = check(taus)
    shape = tuple(shape)
    if kind == "uniform":
        return a + (b - a) * torch.rand(shape, generator=generator)
    normal = torch.randn(shape, generator=generator)
    if kind == "lognormal":
        return a * torch.exp(b * normal)
    out = a + b * normal
    while bool((short := out < SHORTEST_MS).any()):
        out = torch.where(short, a + b * torch.randn(shape, generator=generator), out)
    return out


def check(taus: Taus) -> tuple[str, float, float]:
    """Return a distribution as ``(kind, a, b)``, or say what is wrong with it."""
    if isinstance(taus, bool):
        fix = "pass e.g. ('uniform', 5.0, 50.0)"
        raise ConfigError("tau", f"{taus!r}", "a number or ('normal' | 'uniform' | 'lognormal', a, b), in ms", fix)
    if isinstance(taus, (int, float)):
        values: tuple[str, float, float] = ("uniform", float(taus), float(taus))
    else:
        if len(taus) != 3 or taus[0] not in ("normal", "uniform", "lognormal"):
            expected = "a number or ('normal' | 'uniform' | 'lognormal', a, b), in ms"
            raise ConfigError("tau", f"{taus!r}", expected, "correct the numbers")
        values = (str(taus[0]), float(taus[1]), float(taus[2]))
    kind, a, b = values
    good = a > 0 and (b >= a if kind == "uniform" else b >= 0) and (kind != "normal" or a >= SHORTEST_MS)
    if not (math.isfinite(a) and math.isfinite(b) and good):
        raise ConfigError("tau", f"{taus!r}", "positive time constants in ms", "correct the numbers")
    return values


def mean(taus: Taus) -> float:
    """Return the middle of a distribution in ms: what a homogeneous network has throughout."""
    kind, a, b = check(taus)
    return (a + b) / 2 if kind == "uniform" else a


@checks.annotated
def decay_of(tau_ms: Tensor, dt_ms: float) -> Tensor:
    """Return the factor a step, ``exp(-dt / tau)``.

    Args:
        tau_ms: time constants in ms, above 0, any shape.
        dt_ms: length of a step in ms.
    """
    checks.number("decay_of dt_ms", dt_ms, above=0, what="number of ms")
    return torch.exp(-dt_ms / tau_ms)


@checks.annotated
def tau_of(decay: Tensor, dt_ms: float) -> Tensor:
    """Return time constants in ms; 0 for a decay of 0, infinite for a decay of 1.

    Args:
        decay: factors a step in [0, 1], any shape.
        dt_ms: length of a step in ms.
    """
    checks.number("tau_of dt_ms", dt_ms, above=0, what="number of ms")
    return dt_ms / torch.log(decay).abs()  # abs: the logarithm of 1 is a zero without a sign to divide by
