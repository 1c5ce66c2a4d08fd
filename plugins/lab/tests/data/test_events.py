"""Binning counts every spike in the right bin, and says what it leaves out."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from delaykit import ConfigError, DataError
from delaykit_lab.data.events import EventSet, bin_events


def one(times, units, n_units=10, dtype=np.float64):
    return EventSet([np.array(times, dtype)], [np.array(units, np.uint16)], np.array([0]), n_units)


def slow_bins(times, units, dt_ms, steps, group, channels):
    frames = np.zeros((steps, channels), int)
    for time, unit in zip(times, units, strict=True):
        step = int(np.floor(float(time) * 1000.0 / dt_ms))
        if step < steps:
            frames[step, int(unit) // group] += 1
    return frames


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 1, width=16), st.integers(0, 9)), max_size=40), st.sampled_from([1.0, 5.6, 10.0])
)
def test_equals_the_loop_over_spikes(spikes, dt_ms):
    spikes.sort()
    times, units = [t for t, _ in spikes], [u for _, u in spikes]
    binned = bin_events(one(times, units, dtype=np.float16), dt_ms, channels=5, duration_ms=500.0, incomplete="drop")
    steps = int(500.0 // dt_ms)
    slow = slow_bins(np.array(times, np.float16), units, dt_ms, steps, 2, 5)
    np.testing.assert_array_equal(binned.frames[:, 0], slow)
    assert binned.dropped == len(spikes) - slow.sum()


def test_float16_times_are_widened_before_scaling():
    # 0.5 s + one float16 step = 0.50048828125 s = 500.48828125 ms: float16 would round 500.49 ms to 500.5
    time = np.nextafter(np.float16(0.5), np.float16(1))
    binned = bin_events(one([time], [0], dtype=np.float16), dt_ms=0.49, channels=1, duration_ms=600.0)
    assert binned.frames[:, 0, 0].nonzero()[0].tolist() == [int(500.48828125 / 0.49)]


@pytest.mark.parametrize(("incomplete", "steps", "dropped"), [("keep", 3, 0), ("drop", 2, 1)])
def test_last_incomplete_bin(incomplete, steps, dropped):
    binned = bin_events(one([0.001, 0.011, 0.022], [0, 0, 0]), 10.0, 10, duration_ms=25.0, incomplete=incomplete)
    assert binned.frames.shape[0] == steps and binned.dropped == dropped


def test_a_duration_of_whole_bins_has_no_incomplete_bin():
    for incomplete in ("keep", "drop"):  # 1400 / 5.6 is 250.00000000000003 in floating point
        assert bin_events(one([0.0], [0]), 5.6, 10, duration_ms=1400.0, incomplete=incomplete).frames.shape[0] == 250


def test_without_a_duration_the_latest_spike_is_in_the_last_bin():
    binned = bin_events(one([0.001, 0.020], [0, 9]), 10.0, 10)
    assert binned.frames.shape == (3, 1, 10) and binned.frames[2, 0, 9] == 1 and binned.dropped == 0


def test_neighbouring_units_are_summed():
    binned = bin_events(one([0.0, 0.0, 0.0], [4, 5, 9]), 10.0, channels=2, duration_ms=10.0)
    assert binned.frames[0, 0].tolist() == [1, 2]


@pytest.mark.parametrize("options", [
    {"dt_ms": 0.0}, {"dt_ms": float("nan")}, {"channels": 3}, {"channels": 0}, {"duration_ms": -1.0},
    {"duration_ms": 3.0, "incomplete": "drop"}, {"incomplete": "maybe"},
])  # fmt: skip
def test_bad_options(options):
    with pytest.raises(ConfigError):
        bin_events(one([0.0], [0]), **({"dt_ms": 10.0, "channels": 5} | options))


def test_a_bin_that_overflows_a_byte_is_refused():
    with pytest.raises(DataError, match="256 spikes"):
        bin_events(one([0.0] * 256, [0] * 256), 10.0, 10)
