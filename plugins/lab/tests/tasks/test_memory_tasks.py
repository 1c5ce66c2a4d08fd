"""Match to sample and pattern generation: rates, times and targets are those of the paper."""

from __future__ import annotations

import math

import pytest
import torch

from delaykit import ConfigError, ShapeError
from delaykit_lab.tasks.match_to_sample import MatchToSample, iterations_to
from delaykit_lab.tasks.pattern_generation import PatternGeneration, distance


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_cues_come_on_their_channels_at_their_times_and_rates() -> None:
    task = MatchToSample()
    trials = task.trials(400, seeded())
    assert (task.channels, task.steps) == (30, 210)
    first, second = task.windows()
    assert (first, second) == (slice(10, 30), slice(190, 210))  # 50-150 ms and 950-1050 ms in steps of 5 ms
    hertz = trials.spikes.unflatten(2, (3, 10)).mean(3) * 200.0  # (time, batch, group)
    for window, cue in zip((first, second), trials.cues, strict=True):
        told = hertz[window].mean(0)
        assert float(told[torch.arange(400), cue].mean()) == pytest.approx(40.0, rel=0.03)
        assert float(told[torch.arange(400), 1 - cue].abs().max()) == 0.0
    assert float(hertz[30:190, :, :2].abs().max()) == 0.0  # silence on the cue channels
    assert float(hertz[:, :, 2].mean()) == pytest.approx(10.0, rel=0.03)


def test_labels_say_whether_the_cues_match_and_all_four_pairs_come() -> None:
    trials = MatchToSample().trials(400, seeded())
    assert torch.equal(trials.labels, (trials.cues[0] == trials.cues[1]).long())
    assert sorted({tuple(pair) for pair in trials.cues.T.tolist()}) == [(0, 0), (0, 1), (1, 0), (1, 1)]


def test_noise_comes_on_top_everywhere_and_the_delay_lengthens_the_trial() -> None:
    task = MatchToSample(delay_ms=2500.0, noise_hz=20.0)
    assert task.steps == 550
    hertz = task.trials(200, seeded()).spikes.unflatten(2, (3, 10)).mean((1, 3)) * 200.0
    assert hertz[40:500].mean(0).tolist() == pytest.approx([20.0, 20.0, 30.0], rel=0.03)


def test_the_same_generator_draws_the_same_trials() -> None:
    one, two, other = (MatchToSample().trials(8, seeded(s)).spikes for s in (0, 0, 1))
    assert torch.equal(one, two) and not torch.equal(one, other)


def test_splits_are_trials_with_one_test_set_for_all_seeds() -> None:
    task = MatchToSample(samples=40, held=20)
    one, again, other = task.splits(0), task.splits(0), task.splits(1)
    assert one.train.spikes.shape == (task.steps, 40, task.channels) and len(one.validation) == len(one.test) == 20
    assert torch.equal(one.train.spikes, again.train.spikes) and not torch.equal(one.train.spikes, other.train.spikes)
    assert torch.equal(one.test.spikes, other.test.spikes) and not torch.equal(one.test.spikes, one.validation.spikes)
    counts = one.train.spikes[task.windows()[0]].float().unflatten(2, (3, 10)).sum((0, 3))  # (sample, group)
    later = one.train.spikes[task.windows()[1]].float().unflatten(2, (3, 10)).sum((0, 3))
    matches = (counts[:, 0] > counts[:, 1]) == (later[:, 0] > later[:, 1])
    assert torch.equal(matches.long(), one.train.labels)


def test_iterations_are_counted_to_the_end_of_the_first_good_window() -> None:
    assert iterations_to([1.0] * 3, window=10) is None
    assert iterations_to([1.0] * 10) == 10
    assert iterations_to([0.0] * 7 + [1.0] * 20, level=1.0) == 17
    assert iterations_to([0.5] * 50) is None


@pytest.mark.parametrize(
    "options",
    [{"delay_ms": -1.0}, {"dt_ms": 0.0}, {"noise_hz": math.nan}, {"cue_hz": 300.0}, {"cue_ms": 0.0}, {"held": 0}],
)
def test_match_to_sample_refuses_what_makes_no_sense(options: dict) -> None:
    with pytest.raises(ConfigError):
        MatchToSample(**options)


def test_one_segment_comes_three_times_with_silence_between() -> None:
    task = PatternGeneration()
    pattern = task.pattern(seeded())
    one, two, three = task.windows()
    assert [(w.start, w.stop) for w in (one, two, three)] == [(0, 500), (750, 1250), (1500, 2000)]
    assert torch.equal(pattern.clean[one], pattern.clean[two]) and torch.equal(pattern.clean[one], pattern.clean[three])
    assert float(pattern.clean[task.gaps()].sum()) == 0.0 and int(task.gaps().sum()) == 500
    assert float(pattern.clean[one].mean()) * 1000 == pytest.approx(10.0, rel=0.1)


def test_noise_is_fresh_each_time_and_everywhere() -> None:
    task = PatternGeneration(noise_hz=4.0)
    pattern, generator = task.pattern(seeded()), seeded(1)
    trials = torch.cat([pattern.trial(generator) for _ in range(20)], 1)
    assert trials.shape == (2000, 20, 100) and not torch.equal(trials[:, 0], trials[:, 1])
    assert bool((trials >= pattern.clean.unsqueeze(1)).all()) and set(trials.unique().tolist()) == {0.0, 1.0}
    assert float(trials[task.gaps()].mean()) * 1000 == pytest.approx(4.0, rel=0.05)
    assert torch.equal(PatternGeneration(noise_hz=0.0).pattern(seeded()).trial(generator)[:, 0], pattern.clean)


def test_targets_are_five_cosines_scaled_to_one() -> None:
    target = PatternGeneration(outputs=3).pattern(seeded()).target
    assert target.shape == (2000, 3)
    torch.testing.assert_close(target.amax(0), torch.ones(3))
    torch.testing.assert_close(target.amin(0), -torch.ones(3))
    power = torch.fft.rfft(target, dim=0).abs()  # 2 s: bin k is k * 0.5 Hz
    assert float(power[6:].max()) < 1e-3 * float(power[1:6].max())
    assert not torch.allclose(target[:, 0], target[:, 1])


def test_the_distance_is_zero_for_the_same_answer_and_one_for_the_targets() -> None:
    task = PatternGeneration(outputs=2)
    target = task.pattern(seeded()).target
    one, two, _ = task.windows()
    torch.testing.assert_close(distance(target, target, one, two), torch.ones(2))
    torch.testing.assert_close(distance(0.5 * target, target, one, two), torch.full((2,), 0.25))
    assert distance(torch.ones(2000, 2), target, one, two).tolist() == [0.0, 0.0]
    with pytest.raises(ShapeError):
        distance(target[:, :1], target, one, two)


@pytest.mark.parametrize("options", [{"outputs": 0}, {"noise_hz": -1.0}, {"onsets_ms": (0.0, 400.0)}])
def test_pattern_generation_refuses_what_makes_no_sense(options: dict) -> None:
    with pytest.raises(ConfigError):
        PatternGeneration(**options)


def test_the_first_cue_comes_when_asked_and_the_noise_channels_may_be_silent() -> None:
    task = MatchToSample(onset_ms=0.0, background_hz=0.0)
    trials = task.trials(100, seeded())
    assert task.windows()[0] == slice(0, 20) and task.steps == 200
    assert float(trials.spikes[:, :, 20:].max()) == 0.0 and float(trials.spikes[:20].mean()) > 0.05


def test_segments_have_their_length_and_rate() -> None:
    task = PatternGeneration(segment_ms=100.0, rate_hz=50.0)
    clean = task.pattern(seeded()).clean
    assert [window.stop - window.start for window in task.windows()] == [100, 100, 100]
    assert float(clean[task.gaps()].max()) == 0.0
    assert float(clean[task.windows()[0]].mean()) * 1000.0 == pytest.approx(50.0, rel=0.1)
    assert float(PatternGeneration(rate_hz=0.0).pattern(seeded()).clean.max()) == 0.0


def test_one_cosine_is_a_curve_of_half_a_hertz() -> None:
    curve = PatternGeneration(cosines=1).pattern(seeded()).target[:, 0]
    torch.testing.assert_close(curve[:1000], -curve[1000:], rtol=0, atol=1e-4)  # half a period later
    many = PatternGeneration(cosines=5).pattern(seeded()).target[:, 0]
    assert float((many[:1000] + many[1000:]).abs().max()) > 0.1
