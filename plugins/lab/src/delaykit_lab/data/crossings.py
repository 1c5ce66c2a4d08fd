"""Spikes that say when a signal crosses one of several thresholds, upward or downward.

``up[t, c, k] = x[t-1, c] < theta_k <= x[t, c]``, ``down[t, c, k] = x[t-1, c] >= theta_k > x[t, c]``

Every threshold of a channel has two fibres. A fast change crosses several thresholds in one step, and all of them fire;
a constant signal is silent.

Reference: Guetig and Sompolinsky 2009, "Time-warp-invariant neuronal processing", PLOS Biology 7, e1000141 (thresholds
of Mel channels); there, spikes fall between the frames of the signal, here on its steps.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from delaykit.errors import ConfigError, ShapeError


def even_thresholds(count: int, low: float = 0.0, high: float = 1.0) -> NDArray[np.float64]:
    """Return thresholds at equal distances strictly between two values.

    Example:
        >>> even_thresholds(3).tolist()
        [0.25, 0.5, 0.75]
    """
    if count < 1 or not low < high:
        fix = "pass e.g. count=4, low=-1.0, high=1.0"
        raise ConfigError("even_thresholds", f"{count} between {low:g} and {high:g}", "at least 1, low < high", fix)
    return np.linspace(low, high, count + 2)[1:-1]


def threshold_crossings(signal: NDArray[np.float64], thresholds: Sequence[float]) -> NDArray[np.uint8]:
    """Encode a signal; what lies before its first step counts as being below every threshold.

    Args:
        signal: ``(time, ..., channel)``.
        thresholds: rising, in the signal's units, the same for all channels.

    Returns:
        Spikes 0 or 1, ``(time, ..., 2 * channel * threshold)``: upward fibres first, a channel's thresholds together.

    Raises:
        ConfigError: thresholds do not rise, or there is none.
        ShapeError: the signal has no step, no channel, or a value that is no number.

    Example:
        >>> signal = np.array([[0.1], [0.9], [0.9], [0.4]])
        >>> threshold_crossings(signal, [0.5, 0.75]).tolist()
        [[0, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 1, 1]]
    """
    theta = np.asarray(thresholds, dtype=np.float64)
    if theta.ndim != 1 or not len(theta) or not (np.diff(theta) > 0).all():
        expected, fix = "at least one, each above the last", "sort the thresholds"
        raise ConfigError("threshold_crossings thresholds", f"{list(thresholds)}", expected, fix)
    values = np.asarray(signal, dtype=np.float64)
    if values.ndim < 2 or not values.size or np.isnan(values).any():
        found = f"shape {values.shape}" + (", NaN in it" if np.isnan(values).any() else "")
        fix = "give the signal time first"
        raise ShapeError("threshold_crossings signal", found, "(time, ..., channel) of numbers", fix)
    above = values[..., None] >= theta
    before = np.concatenate([np.zeros_like(above[:1]), above[:-1]])
    fibres = [(above & ~before), (before & ~above)]
    return np.concatenate([x.reshape(*x.shape[:-2], -1) for x in fibres], axis=-1).astype(np.uint8)
