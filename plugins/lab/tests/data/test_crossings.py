"""Threshold crossings against a loop that says the same in words, and what the fibres' order and silence are."""

from __future__ import annotations

import numpy as np
import pytest

from delaykit import ConfigError, ShapeError
from delaykit_lab.data.crossings import even_thresholds, threshold_crossings


def by_loop(signal: np.ndarray, thresholds: list[float]) -> np.ndarray:
    time, channels = signal.shape
    spikes = np.zeros((time, 2, channels, len(thresholds)), dtype=np.uint8)
    for channel in range(channels):
        last = -np.inf
        for step in range(time):
            for k, theta in enumerate(thresholds):
                spikes[step, 0, channel, k] = last < theta <= signal[step, channel]
                spikes[step, 1, channel, k] = last >= theta > signal[step, channel]
            last = signal[step, channel]
    return spikes.reshape(time, -1)


def test_crossings_are_those_of_the_loop() -> None:
    signal = np.random.default_rng(0).random((60, 3))
    thresholds = even_thresholds(15).tolist()
    found = threshold_crossings(signal, thresholds)
    np.testing.assert_array_equal(found, by_loop(signal, thresholds))
    assert found.shape == (60, 2 * 3 * 15) and 0.02 < found.mean() < 0.5


def test_samples_are_independent() -> None:
    signal = np.random.default_rng(1).random((20, 4, 2))
    both = threshold_crossings(signal, [0.3, 0.6])
    for sample in range(4):
        np.testing.assert_array_equal(both[:, sample], threshold_crossings(signal[:, sample], [0.3, 0.6]))


def test_a_threshold_goes_up_and_down_in_turns_and_a_constant_is_silent() -> None:
    signal = np.random.default_rng(2).random((200, 1))
    up, down = threshold_crossings(signal, [0.5]).T
    signs = [1 if u else -1 for u, d in zip(up, down, strict=True) if u or d]
    assert len(signs) > 50 and signs[::2] == [1] * len(signs[::2]) and signs[1::2] == [-1] * len(signs[1::2])
    assert threshold_crossings(np.full((9, 2), 0.7), [0.5])[1:].sum() == 0


@pytest.mark.parametrize("thresholds", [[], [0.5, 0.5], [0.6, 0.2]])
def test_thresholds_that_do_not_rise_are_refused(thresholds) -> None:
    with pytest.raises(ConfigError, match="each above the last"):
        threshold_crossings(np.zeros((3, 1)), thresholds)


@pytest.mark.parametrize("signal", [np.zeros(3), np.zeros((0, 2)), np.array([[np.nan]])])
def test_signals_without_numbers_are_refused(signal) -> None:
    with pytest.raises(ShapeError, match="time"):
        threshold_crossings(signal, [0.5])
    with pytest.raises(ConfigError):
        even_thresholds(0)
