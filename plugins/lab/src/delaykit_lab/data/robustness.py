"""What a trained network is asked to bear at test time: spikes that are lost, and everything faster or slower.

Reference: Deng et al., "HetSyn": deletion with p = 0.01 * 2^n, n = 0..6; warps of log2(factor) in [-0.5, 0.5].
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from delaykit import ConfigError, checks
from delaykit_lab.data.events import EventSet

DELETIONS = tuple(0.01 * 2**n for n in range(7))


@checks.annotated
def delete_spikes(spikes: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """Lose every spike with the same probability, one independently of the other.

    Args:
        spikes: counts, any shape.
        probability: of a spike to be lost, in [0, 1].
        generator: source of the draws.

    Returns:
        Counts of the spikes that are left, same shape and dtype.

    Example:
        >>> delete_spikes(torch.tensor([3.0, 0.0]), 1.0, torch.Generator()).tolist()
        [0.0, 0.0]
    """
    if not 0.0 <= probability <= 1.0:
        raise ConfigError("delete_spikes probability", f"{probability}", "a number in [0, 1]", "pass e.g. 0.1")
    left = torch.zeros_like(spikes)
    for count in range(int(spikes.max()) if spikes.numel() else 0):
        kept = torch.rand(spikes.shape, generator=generator) >= probability
        left += (kept & (spikes > count)).to(spikes.dtype)
    return left


@checks.annotated
def warp_time(events: EventSet, factor: float) -> EventSet:
    """Stretch (factor > 1) or squeeze all spike times; bin the result over ``factor`` times the duration.

    Args:
        events: samples.
        factor: of every time, > 0.

    Example:
        >>> import numpy as np
        >>> events = EventSet([np.array([0.25])], [np.array([0])], np.array([0]), n_units=1)
        >>> warp_time(events, 2.0).times[0].tolist()
        [0.5]
    """
    checks.number("warp_time factor", factor, above=0)
    return dataclasses.replace(events, times=[times.astype("float64") * factor for times in events.times])


@checks.annotated
def warp_factors(count: int, generator: torch.Generator, largest: float = 0.5) -> list[float]:
    """Draw factors whose base-2 logarithm is uniform in ``[-largest, largest]``.

    Args:
        count: how many.
        generator: source of the factors.
        largest: base-2 logarithm of the largest factor.
    """
    checks.whole("warp_factors count", count)
    checks.affordable("warp_factors count", count, 1, "factors", "ask for fewer")
    checks.number("warp_factors largest", largest, least=0, most=100)
    return (2.0 ** (largest * (2 * torch.rand(count, generator=generator) - 1))).tolist()
