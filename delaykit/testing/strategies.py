"""Hypothesis strategies: spike trains, delays, sites and free-delay configs, small enough to shrink well."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from delaykit.delays import FreeDelay
from delaykit.interfaces import GRANULARITIES, Granularity, Site

SIZES = st.integers(1, 4)


@st.composite
def spike_trains(
    draw: st.DrawFn, time: int | None = None, batch: int | None = None, pre: int | None = None, rate: float = 0.3
) -> Tensor:
    """Draw float64 spikes ``(time, batch, pre)`` of 0 and 1; shapes that are not given are drawn too.

    Args:
        draw: given by hypothesis.
        time: number of steps, else 1..12.
        batch: number of rows, else 1..4.
        pre: number of presynaptic neurons, else 1..4.
        rate: probability of a spike.
    """
    shape = (time or draw(st.integers(1, 12)), batch or draw(SIZES), pre or draw(SIZES))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31 - 1)))
    return (torch.rand(shape, generator=generator, dtype=torch.float64) < rate).double()


def delay_values(max_delay: float = 5.0) -> st.SearchStrategy[float]:
    """Draw one delay in [0, max_delay] steps: bounds, whole, half and arbitrary numbers of steps.

    Args:
        max_delay: largest delay, steps, > 0.
    """
    whole = st.integers(0, int(max_delay)).map(float)
    half = whole.map(lambda d: min(d + 0.5, max_delay))
    return st.one_of(st.sampled_from([0.0, max_delay]), whole, half, st.floats(0.0, max_delay))


def sites() -> st.SearchStrategy[Site]:
    """Draw a connection with 1..4 neurons on either side, feed-forward or recurrent."""
    feedforward = st.builds(lambda pre, post: Site("fc", pre, post), SIZES, SIZES)
    recurrent = st.builds(lambda n: Site("cell.recurrent", n, n, recurrent=True, neuron="cell"), SIZES)
    return st.one_of(feedforward, recurrent)


@st.composite
def delays_of(draw: st.DrawFn, site: Site, granularity: Granularity, max_delay: float = 5.0) -> Tensor:
    """Draw float64 delays for a site, in the broadcastable 2-D shape of the granularity.

    Args:
        draw: given by hypothesis.
        site: the connection.
        granularity: ``layer``, ``axonal``, ``dendritic`` or ``synaptic``.
        max_delay: largest delay, steps.
    """
    shape = site.delay_shape(granularity)
    count = shape[0] * shape[1]
    values = draw(st.lists(delay_values(max_delay), min_size=count, max_size=count))
    return torch.tensor(values, dtype=torch.float64).reshape(shape)


@st.composite
def free_delays(draw: st.DrawFn, max_delay: float = 5.0) -> FreeDelay:
    """Draw a legal :class:`~delaykit.FreeDelay`: every granularity, kernel, initialisation and rounding.

    Args:
        draw: given by hypothesis.
        max_delay: largest delay, steps.
    """
    kernel = draw(st.sampled_from(["linear", "triangle", "gaussian", "hard"]))
    options: dict[str, Any] = {"kernel": kernel, "learn": kernel != "hard" and draw(st.booleans())}
    if kernel in ("triangle", "gaussian"):
        options |= {"spread": draw(st.floats(0.0, 3.0)), "spread_decay": draw(st.floats(0.5, 1.0))}
    if draw(st.booleans()):
        options["init"] = draw(delay_values(max_delay))
    else:
        options["init"] = draw(st.sampled_from(["uniform", "half-normal", "integers"]))
    options |= {"normalize": draw(st.sampled_from([None, True, False]))}
    options["rounding"] = draw(st.sampled_from(["none", "straight-through"]))
    return FreeDelay(draw(st.sampled_from(GRANULARITIES)), max_delay=max_delay, **options)
