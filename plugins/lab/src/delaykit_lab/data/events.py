"""Spike events and their binning into frames.

A sample is a list of (time, unit) pairs. Binning counts the spikes of each group of units in windows of ``dt``:

    frames[k, n, c] = #{ spikes of sample n : floor(t / dt) = k  and  floor(unit * channels / units) = c }
"""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from delaykit import ConfigError, DataError, checks

LONGEST = 10_000_000  # steps that a sample may have where its latest spike decides


@checks.annotated
@dataclasses.dataclass(frozen=True)
class EventSet:
    """Labelled spike trains, as they were stored.

    Args:
        times: one array a sample, seconds, >= 0, sorted; of the precision of the file.
        units: one array a sample, the unit of each spike, 0 .. ``n_units - 1``.
        labels: class of each sample, ``(sample,)``.
        n_units: number of units that can spike.
        keys: name of each class, where the file has them.
        speakers: speaker of each sample ``(sample,)``, where the file has them.
        source: where the samples came from, for messages.
    """

    times: list[NDArray[np.floating]]
    units: list[NDArray[np.integer]]
    labels: NDArray[np.int64]
    n_units: int
    keys: tuple[str, ...] = ()
    speakers: NDArray[np.int64] | None = None
    source: str = "events"

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.labels)

    def duration(self) -> float:
        """Time of the latest spike of all samples, in seconds (0 where there is none)."""
        return max((float(t[-1]) for t in self.times if len(t)), default=0.0)


@dataclasses.dataclass(frozen=True)
class BinnedEvents:
    """Frames with a count of what did not fit.

    Args:
        frames: spike counts, ``(time, sample, channel)`` uint8.
        dropped: number of spikes that lay after the last bin.
    """

    frames: NDArray[np.uint8]
    dropped: int


@checks.annotated
def bin_events(
    events: EventSet,
    dt_ms: float,
    channels: int,
    duration_ms: float | None = None,
    incomplete: Literal["keep", "drop"] = "keep",
) -> BinnedEvents:
    """Count spikes in windows of ``dt_ms`` and in groups of neighbouring units.

    Times are cast to float64 before they are scaled: float16 seconds times 1000 would lose another bit.
    A duration that is no multiple of ``dt_ms`` ends in an incomplete bin, which is kept (and then is shorter than the
    others) or dropped; a spike at exactly the end of the last bin belongs to no bin.

    Args:
        events: the samples.
        dt_ms: width of a bin in ms, > 0.
        channels: number of groups; must divide the number of units (700 units, 140 channels: sums of 5).
        duration_ms: length of a sample in ms; None: up to the latest spike of this set, which lies in the last bin.
        incomplete: what happens to a last bin that ``duration_ms`` cuts short.

    Returns:
        Counts ``(time, sample, channel)`` as uint8 and the number of spikes after the last bin.

    Raises:
        ConfigError: ``dt_ms`` or ``duration_ms`` is not positive, or ``channels`` does not divide the units.
        DataError: a bin holds more than 255 spikes.

    Example:
        >>> events = EventSet([np.array([0.001, 0.012])], [np.array([0, 9])], np.array([3]), n_units=10)
        >>> bin_events(events, dt_ms=10.0, channels=2).frames[:, 0].tolist()
        [[1, 0], [0, 1]]
    """
    steps = _number_of_bins(events, dt_ms, duration_ms, incomplete)
    if channels < 1 or events.n_units % channels:
        raise ConfigError("channels", f"{channels}", f"a divisor of {events.n_units} units", "choose e.g. 140 of 700")
    group = events.n_units // channels
    frames = np.zeros((steps, len(events), channels), dtype=np.uint8)
    dropped = 0
    for sample, (times, units) in enumerate(zip(events.times, events.units, strict=True)):
        position = np.floor(times.astype(np.float64) * 1e3 / dt_ms)
        inside = position < steps  # before the cast: 1e300 is no int64, and would count in the first bin
        dropped += int(len(position) - inside.sum())
        cell = position[inside].astype(np.int64) * channels + units[inside].astype(np.int64) // group
        counts = np.bincount(cell, minlength=steps * channels)
        if counts.size and counts.max() > 255:
            raise DataError(
                events.source,
                f"{counts.max()} spikes in one bin of sample {sample}",
                "at most 255",
                "use a smaller dt_ms or more channels",
            )
        frames[:, sample] = counts.reshape(steps, channels)
    return BinnedEvents(frames, dropped)


def _number_of_bins(events: EventSet, dt_ms: float, duration_ms: float | None, incomplete: str) -> int:
    if not (math.isfinite(dt_ms) and dt_ms > 0):
        raise ConfigError("dt_ms", f"{dt_ms}", "a positive number of milliseconds", "e.g. dt_ms=10.0")
    if incomplete not in ("keep", "drop"):
        raise ConfigError("incomplete", repr(incomplete), "'keep' or 'drop'", "name one of the two")
    if duration_ms is None:
        last = math.floor(events.duration() * 1e3 / dt_ms)  # the bin of the latest spike
        if last >= LONGEST:
            found = f"a spike at {events.duration():g} s, which is step {last:.3g}"
            raise DataError(events.source, found, f"at most {LONGEST:,} steps", "give duration_ms, or a larger dt_ms")
        return last + 1 if incomplete == "keep" else max(last, 1)
    if not (math.isfinite(duration_ms) and duration_ms > 0):
        raise ConfigError("duration_ms", f"{duration_ms}", "a positive number of milliseconds", "or None: latest spike")
    exact = duration_ms / dt_ms
    # 1400 / 5.6 is 250.00000000000003: a bin cut off by rounding alone is no incomplete bin
    whole = round(exact) if math.isclose(exact, round(exact), rel_tol=1e-9) else math.floor(exact)
    bins = whole if whole >= exact - 1e-6 or incomplete == "drop" else whole + 1
    if bins < 1:
        raise ConfigError("duration_ms", f"{duration_ms}", f"at least one bin of {dt_ms} ms", "shorten dt_ms")
    return bins
