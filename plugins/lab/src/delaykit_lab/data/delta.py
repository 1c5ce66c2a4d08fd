"""Delta modulation: a continuous signal becomes ON and OFF spikes, as a silicon cochlea or retina would send it.

A tracker r starts at ``start`` and follows the signal x in steps of a threshold theta, at most one a time step:

    x[k] - r >= theta :  ON spike,  r <- r + theta
    r - x[k] >= theta :  OFF spike, r <- r - theta

Reference: Corradi, Indiveri 2015, "A neuromorphic event-based neural recording system", IEEE TBioCAS 9(5), 699-709.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from delaykit import ShapeError


def stretch(series: NDArray[np.float64], factor: int) -> NDArray[np.float64]:
    """Resample ``(frame, channel)`` to ``factor`` steps a frame by linear interpolation, holding the last frame.

    Example:
        >>> stretch(np.array([[0.0], [2.0]]), 2)[:, 0].tolist()
        [0.0, 1.0, 2.0, 2.0]
    """
    frames, channels = series.shape
    when = np.arange(frames * factor) / factor
    return np.stack([np.interp(when, np.arange(frames), series[:, c]) for c in range(channels)], axis=1)


def delta_modulate(
    series: Sequence[NDArray[np.float64]], threshold: NDArray[np.float64], start: NDArray[np.float64], steps: int
) -> NDArray[np.uint8]:
    """Encode signals as ON and OFF spikes.

    Args:
        series: one array ``(step, channel)`` a sample, at most ``steps`` long; nothing fires after its end.
        threshold: theta of each channel, ``(channel,)``, > 0, in units of the signal.
        start: where the tracker begins, ``(channel,)``.
        steps: length of the result.

    Returns:
        Spikes 0 or 1, ``(time, sample, 2 * channel)``: ON channels first, OFF channels second.

    Raises:
        ShapeError: a series is longer than ``steps``, or its channels do not match the thresholds.

    Example:
        >>> spikes = delta_modulate([np.array([[1.0], [2.0], [0.5]])], np.array([1.0]), np.array([0.0]), steps=4)
        >>> spikes[:, 0].tolist()
        [[1, 0], [1, 0], [0, 1], [0, 0]]
    """
    channels = len(threshold)
    spikes = np.zeros((steps, len(series), 2 * channels), dtype=np.uint8)
    for sample, signal in enumerate(series):
        if signal.ndim != 2 or signal.shape[1] != channels or len(signal) > steps:
            fix = "give every signal (time, channel), as long as steps at most"
            raise ShapeError(f"series[{sample}]", f"shape {signal.shape}", f"(at most {steps}, {channels})", fix)
        tracker = start.copy()
        for step, value in enumerate(signal):
            up, down = value - tracker >= threshold, tracker - value >= threshold
            tracker += threshold * up - threshold * down
            spikes[step, sample, :channels], spikes[step, sample, channels:] = up, down
    return spikes
