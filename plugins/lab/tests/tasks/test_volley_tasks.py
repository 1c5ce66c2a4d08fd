"""Tasks that need delays: counts say nothing, the stated delays are the right ones, the stated optimum is the best."""

from __future__ import annotations

import math
from statistics import NormalDist

import pytest
import torch

import delaykit as dk
from delaykit_lab import Coincidence, IntervalDiscrimination, MovingWave, SoundLocalisation
from delaykit_lab.comparison.counts import count_accuracy
from delaykit_lab.demo.localisation import draw_lags, learn_directions
from delaykit_lab.models.detectors import Detectors
from delaykit_lab.training.runner import accuracy, predict

TASKS = [Coincidence, SoundLocalisation, IntervalDiscrimination, MovingWave]


@pytest.mark.parametrize("make", TASKS)
def test_without_background_every_channel_fires_as_often_in_every_class(make):
    task = make(samples=64, held=64, background=0.0, jitter=0.0)
    spikes = task.splits(0).train.spikes.sum(0)
    most = spikes.max(0).values  # fewer only where two clicks fall into one bin
    assert bool((spikes <= most).all()) and float((spikes == most).double().mean()) > 0.2
    assert task.lags().shape[:2] == (task.classes, task.channels) and bool((task.lags() >= 0).all())


@pytest.mark.parametrize("make", TASKS)
def test_counts_alone_are_near_chance(make):
    task = make(samples=300, held=300)
    chance = 1 / task.classes
    assert count_accuracy(task.splits(0)) < chance + 5 * math.sqrt(chance * (1 - chance) / 300) + 0.03


@pytest.mark.parametrize("make", TASKS)
def test_the_best_delays_are_the_right_ones_and_no_delays_are_not(make):
    task = make(jitter=0.2, background=0.0)
    splits, found = task.splits(0), []
    for delays in (task.optimum().delays, torch.zeros(task.classes, task.channels)):
        net = Detectors(task.channels, task.classes, beta=0.5 if make is MovingWave else 0.2)
        rule = dk.At(dk.FreeDelay("synaptic", max_delay=40, init=delays.tolist()), time_dim=0)
        dk.wrap_(net, {"fc": rule}, example=splits.test.batch(torch.arange(2))[0])
        found.append(accuracy(predict(net, splits.test), splits.test))
    assert found[0] > 0.8 and found[1] < 0.35


@pytest.mark.parametrize(("jitter", "fibres"), [(1.0, 2), (2.0, 4)])
def test_the_optimum_of_intervals_is_the_closed_form(jitter, fibres):
    task = IntervalDiscrimination(intervals=5, fibres=fibres, jitter=jitter, held=20000)
    error = 2 * (1 - 1 / 5) * NormalDist().cdf(-task.spacing / (2 * jitter * math.sqrt(2 / fibres)))
    assert task.optimum().accuracy == pytest.approx(1 - error, abs=4 * math.sqrt(error / 20000))


def test_the_optimum_of_two_directions_is_the_closed_form():
    task = SoundLocalisation(2, widest=10.0, clicks=3, jitter=4.0, held=20000)
    apart = float(task.interaural_ms().diff() / task.dt_ms)
    error = NormalDist().cdf(-apart / (2 * 4.0 * math.sqrt(2 / 3)))
    assert 0.02 < error < 0.4
    assert task.optimum().accuracy == pytest.approx(1 - error, abs=4 * math.sqrt(error / 20000))


def test_woodworth_s_formula():
    task = SoundLocalisation(3, widest=90.0, radius_mm=343.0)
    assert task.interaural_ms().tolist() == pytest.approx([-(math.pi / 2 + 1), 0.0, math.pi / 2 + 1])


@pytest.mark.parametrize("make", TASKS)
def test_the_seed_draws_training_and_never_test(make):
    one, other = make(samples=8, held=8).splits(0), make(samples=8, held=8).splits(1)
    assert not torch.equal(one.train.spikes, other.train.spikes) and torch.equal(one.test.spikes, other.test.spikes)
    assert torch.equal(make(samples=8, held=8).splits(0).train.spikes, one.train.spikes)


@pytest.mark.slow
def test_learned_delays_equal_the_geometry():
    task = SoundLocalisation(directions=5, samples=512, held=256)
    lags = learn_directions(task, seed=0, epochs=20)
    step = task.dt_ms
    assert (lags.start_ms - lags.true_ms).abs().max() > 6 * step  # far from it before
    assert (lags.learned_ms - lags.true_ms).abs().max() < 1.5 * step
    ax = draw_lags([lags])
    assert ax.get_xlabel().endswith("(ms)") and len(ax.collections) == 2


@pytest.mark.parametrize(("make", "options"), [
    (Coincidence, {"channels": 1}), (Coincidence, {"span": math.inf}), (Coincidence, {"background": 1.0}),
    (Coincidence, {"jitter": math.nan}), (SoundLocalisation, {"widest": 100.0}), (SoundLocalisation, {"clicks": 0}),
    (SoundLocalisation, {"dt_ms": 0.0}), (IntervalDiscrimination, {"fibres": 1}),
    (IntervalDiscrimination, {"spacing": -1.0}), (MovingWave, {"sensors": 2}), (MovingWave, {"sweep": 0.0}),
    (MovingWave, {"samples": 0}),
])  # fmt: skip
def test_what_makes_no_task_is_refused(make, options):
    with pytest.raises(dk.ConfigError, match=make.__name__):
        make(**options)
