"""Spike patterns to remember: ``(time, pattern, neuron)``, bool. Patterns are a batch, recalled side by side."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from delaykit import checks
from delaykit.errors import ConfigError, ShapeError


@checks.annotated
def bernoulli_patterns(
    time: int, patterns: int, neurons: int, rate: float, generator: torch.Generator | None = None
) -> Tensor:
    """Draw every spike independently, ``P(s = 1) = rate``.

    Args:
        time: number of steps.
        patterns: number of patterns M.
        neurons: number of neurons N.
        rate: probability of a spike a step, p_A in [0, 1].
        generator: source of randomness.

    Returns:
        Bool ``(time, patterns, neurons)``.

    Raises:
        ConfigError: a rate outside [0, 1].

    Example:
        >>> bernoulli_patterns(100, 2, 50, 0.01, torch.Generator().manual_seed(0)).shape
        torch.Size([100, 2, 50])
    """
    _check_rate("bernoulli_patterns", rate)
    for name, count in (("time", time), ("patterns", patterns), ("neurons", neurons)):
        checks.whole(f"bernoulli_patterns {name}", count)
    # A pattern at a time: the random numbers take 32 times the place of the spikes.
    drawn = [torch.rand(time, neurons, generator=generator) < rate for _ in range(patterns)]
    return torch.stack(drawn, 1) if drawn else torch.zeros(time, 0, neurons, dtype=torch.bool)


@checks.annotated
def evidence_patterns(evidence: Tensor, refractory: int, generator: torch.Generator | None = None) -> Tensor:
    """Fire with probability ``sigmoid(evidence[t])`` unless a spike came less than ``refractory`` steps ago.

    Args:
        evidence: log-odds of a spike, ``(time, pattern, neuron)``.
        refractory: smallest number of steps between two spikes of a neuron, >= 1 (1: no constraint).
        generator: source of randomness.

    Returns:
        Bool ``(time, pattern, neuron)``.

    Raises:
        ShapeError: evidence without three dimensions.
        ConfigError: a refractory period below 1.

    Example:
        >>> sure = torch.full((7, 1, 1), 100.0)
        >>> evidence_patterns(sure, 3).flatten().int().tolist()
        [1, 0, 0, 1, 0, 0, 1]
    """
    if evidence.dim() != 3:
        found = f"evidence {tuple(evidence.shape)}"
        raise ShapeError("evidence_patterns", found, "(time, pattern, neuron)", "add the missing dimension")
    if refractory < 1:
        raise ConfigError("evidence_patterns.refractory", repr(refractory), "steps >= 1", "pass 1 for no constraint")
    last = torch.full(evidence.shape[1:], -refractory)
    spikes = torch.zeros(evidence.shape, dtype=torch.bool)
    for t, odds in enumerate(evidence):
        fired = (torch.rand(last.shape, generator=generator) < odds.sigmoid()) & (t - last >= refractory)
        last[fired] = t
        spikes[t] = fired
    return spikes


@checks.annotated
def evidence_of(rate: float, refractory: int) -> float:
    """Return the constant evidence at which neurons with a refractory period fire at ``rate``.

    The mean interval is ``1 / rate = refractory - 1 + 1 / q``, so ``q = 1 / (1 / rate - refractory + 1)``.

    Args:
        rate: spikes a step, in (0, 1).
        refractory: steps from a spike to the next that there may be, 1 or more.

    Raises:
        ConfigError: a rate that the refractory period does not allow.

    Example:
        >>> round(evidence_of(0.5, 1), 6)
        0.0
    """
    _check_rate("evidence_of", rate)
    if rate <= 0 or 1 / rate - refractory + 1 <= 1:
        found, expected = f"rate {rate:g} with refractory {refractory}", f"0 < rate < {1 / max(refractory, 1):g}"
        raise ConfigError("evidence_of", found, expected, "lower the rate or the refractory period")
    q = 1 / (1 / rate - refractory + 1)
    return math.log(q / (1 - q))


def _check_rate(where: str, rate: float) -> None:
    if not 0 <= rate <= 1:
        raise ConfigError(f"{where}.rate", repr(rate), "a probability in [0, 1]", "pass e.g. 0.001")


def check_patterns(where: str, patterns: Tensor, neurons: int | None = None) -> None:
    """Refuse spikes that are not ``(time, pattern, neuron)``.

    Args:
        where: the call and its argument.
        patterns: what was given.
        neurons: of the network they belong to; None: any number.

    Raises:
        ShapeError: another shape, or other neurons.
    """
    if patterns.dim() != 3 or neurons not in (None, patterns.shape[2]):
        expected = f"(time, pattern, {'neuron' if neurons is None else neurons})"
        fix = "give one pattern a dimension of its own: spikes.unsqueeze(1)"
        raise ShapeError(where, f"spikes {tuple(patterns.shape)}", expected, fix)
