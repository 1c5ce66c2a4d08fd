"""Deletion thins binomially; a warp moves every spike and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from delaykit import ConfigError
from delaykit_lab.data.events import EventSet, bin_events
from delaykit_lab.data.robustness import DELETIONS, delete_spikes, warp_factors, warp_time


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_each_spike_is_lost_on_its_own() -> None:
    counts = torch.full((40000,), 3.0)
    left = delete_spikes(counts, 0.25, seeded())
    shares = [float((left == k).float().mean()) for k in range(4)]
    wanted = [0.25**3, 3 * 0.75 * 0.25**2, 3 * 0.75**2 * 0.25, 0.75**3]
    assert shares == pytest.approx(wanted, abs=0.01)


def test_nothing_and_everything_can_be_lost_and_nothing_appears() -> None:
    counts = torch.tensor([0, 1, 5, 0], dtype=torch.uint8)
    assert torch.equal(delete_spikes(counts, 0.0, seeded()), counts)
    assert int(delete_spikes(counts, 1.0, seeded()).sum()) == 0
    assert delete_spikes(counts, 0.5, seeded()).dtype == torch.uint8
    assert bool((delete_spikes(counts, 0.5, seeded()) <= counts).all())
    assert DELETIONS == pytest.approx((0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64))


def test_a_warp_moves_every_spike_and_keeps_the_rest() -> None:
    events = EventSet(
        [np.array([0.012, 0.022, 0.044], dtype=np.float16)], [np.array([0, 3, 1])], np.array([2]), n_units=4
    )
    slow = warp_time(events, 1.5)
    np.testing.assert_allclose(slow.times[0], 1.5 * events.times[0].astype(np.float64))
    assert slow.units is events.units and slow.labels is events.labels
    frames = bin_events(slow, 10.0, 4, 75.0).frames
    assert [tuple(at) for at in np.argwhere(frames)] == [(1, 0, 0), (3, 0, 3), (6, 0, 1)] and frames.shape == (8, 1, 4)


def test_factors_are_uniform_on_a_logarithmic_scale() -> None:
    logs = np.log2(warp_factors(20000, seeded()))
    assert abs(logs.mean()) < 0.01 and -0.5 <= logs.min() < -0.49 and 0.49 < logs.max() <= 0.5
    assert logs.std() == pytest.approx(1 / np.sqrt(12), rel=0.02)


def test_what_makes_no_sense_is_an_error() -> None:
    for probability in (-0.1, 1.1):
        with pytest.raises(ConfigError):
            delete_spikes(torch.ones(1), probability, seeded())
    for factor in (0.0, -1.0, float("nan")):
        with pytest.raises(ConfigError):
            warp_time(EventSet([], [], np.array([]), 1), factor)
