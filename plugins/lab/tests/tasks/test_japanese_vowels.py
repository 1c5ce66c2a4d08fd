"""The recordings in sktime's wheel: complete, read without sktime, encoded from training data alone."""

from __future__ import annotations

import subprocess
import sys

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings

from delaykit import ConfigError, DataError, ShapeError
from delaykit_lab.data.delta import delta_modulate, stretch
from delaykit_lab.data.japanese_vowels import installed_folder, read_utterances
from delaykit_lab.task import hold_out
from delaykit_lab.tasks.japanese_vowels import JapaneseVowels

SPLITS = JapaneseVowels().splits(seed=0)


def test_the_published_counts():
    train, test = read_utterances("train"), read_utterances("test")
    assert np.bincount(train.labels).tolist() == [30] * 9
    assert np.bincount(test.labels).tolist() == [31, 35, 88, 44, 29, 24, 40, 50, 29]
    assert {series.shape[1] for series in train.series + test.series} == {12}
    assert (min(map(len, train.series)), max(map(len, test.series))) == (7, 29)
    assert train.series[0][0, 0] == 1.860936 and test.series[-1][-1, -1] == 0.224688


def test_sktime_is_found_but_not_imported():
    code = "import sys; from delaykit_lab import read_utterances as r; r('train'); sys.exit('sktime' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_frames_are_binary_and_silent_after_the_end():
    assert SPLITS.train.spikes.shape == (58, 216, 24) and SPLITS.train.spikes.dtype == torch.uint8
    assert int(SPLITS.train.spikes.max()) == 1
    test = read_utterances("test")
    for sample, series in enumerate(test.series):
        assert not SPLITS.test.spikes[2 * len(series) :, sample].any()
    assert 0.03 < SPLITS.test.spikes.float().mean() < 0.3


def test_started_at_the_first_frame_spikes_tell_changes_only(tmp_path):
    lines = (installed_folder() / "JapaneseVowels_TEST.ts").read_text(encoding="utf-8").splitlines()
    constant = ":".join([",".join(["0.5"] * 9)] * 12 + ["1"])
    train = (installed_folder() / "JapaneseVowels_TRAIN.ts").read_text(encoding="utf-8")
    (tmp_path / "JapaneseVowels_TRAIN.ts").write_text(train, encoding="utf-8")
    text = "\n".join([line for line in lines if line[0] in "#@"] + [constant] * 370)
    (tmp_path / "JapaneseVowels_TEST.ts").write_text(text, encoding="utf-8")
    assert not JapaneseVowels(start="first", folder=str(tmp_path)).splits(seed=0).test.spikes.any()
    assert JapaneseVowels(start="mean", folder=str(tmp_path)).splits(seed=0).test.spikes.any()


def test_on_and_off_never_spike_together():
    assert not (SPLITS.train.spikes[..., :12] & SPLITS.train.spikes[..., 12:]).any()


def test_nothing_of_the_test_set_enters_the_encoding(tmp_path):
    for name in ("TRAIN", "TEST"):
        text = (installed_folder() / f"JapaneseVowels_{name}.ts").read_text(encoding="utf-8").splitlines()
        if name == "TEST":  # the same test utterance over and over
            text = [line for line in text if line[0] in "#@"] + [text[-1]] * 370
        (tmp_path / f"JapaneseVowels_{name}.ts").write_text("\n".join(text), encoding="utf-8")
    changed = JapaneseVowels(folder=str(tmp_path)).splits(seed=0)
    assert torch.equal(changed.train.spikes, SPLITS.train.spikes)
    assert torch.equal(changed.test.spikes[:, 0], SPLITS.test.spikes[:, -1])


def test_validation_is_stratified_disjoint_and_drawn_by_the_seed():
    labels = torch.arange(9).repeat_interleave(30)
    kept, held = hold_out(labels, 0.2, torch.Generator().manual_seed(1))
    assert labels[held].bincount().tolist() == [6] * 9
    assert sorted(torch.cat([kept, held]).tolist()) == list(range(270))
    again = hold_out(labels, 0.2, torch.Generator().manual_seed(1))[1]
    other = hold_out(labels, 0.2, torch.Generator().manual_seed(2))[1]
    assert torch.equal(held, again) and not torch.equal(held, other)


def test_a_class_too_small_to_split_is_refused():
    with pytest.raises(DataError, match="class 1"):
        hold_out(torch.tensor([0, 0, 0, 0, 1]), 0.25, torch.Generator())


@pytest.mark.parametrize("damage", ["missing", "short", "letters", "eleven", "ragged", "label"])
def test_damaged_files_are_refused(tmp_path, damage):
    path = tmp_path / "JapaneseVowels_TRAIN.ts"
    lines = (installed_folder() / path.name).read_text(encoding="utf-8").splitlines()
    series = lines[-1].split(":")
    bad = {
        "letters": ":".join(["x", *series[1:]]),
        "eleven": ":".join(series[1:]),
        "ragged": ":".join([series[0] + ",1.0", *series[1:]]),
        "label": ":".join([*series[:-1], "10"]),
    }
    if damage != "missing":
        path.write_text("\n".join(lines[:-1] + ([bad[damage]] if damage in bad else [])), encoding="utf-8")
    with pytest.raises(DataError) as problem:
        read_utterances("train", tmp_path)
    assert "JapaneseVowels_TRAIN.ts" in problem.value.where


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-3, 3), min_size=1, max_size=30), st.floats(0.05, 2))
def test_delta_modulation_follows_as_fast_as_one_step_allows(signal, theta):
    series = np.array(signal)[:, None]
    spikes = delta_modulate([series], np.array([theta]), np.zeros(1), steps=30)[:, 0].astype(float)
    tracker = 0.0
    for value, (on, off) in zip(signal, spikes, strict=False):
        wanted = theta if value - tracker >= theta else -theta if tracker - value >= theta else 0.0
        assert theta * (on - off) == wanted
        tracker += wanted
    assert not spikes[len(signal) :].any()


def test_delta_modulation_refuses_series_that_do_not_fit():
    with pytest.raises(ShapeError, match=r"series\[0\]"):
        delta_modulate([np.zeros((5, 1))], np.ones(1), np.zeros(1), steps=4)
    with pytest.raises(ShapeError):
        delta_modulate([np.zeros((3, 2))], np.ones(1), np.zeros(1), steps=4)


def test_stretching_keeps_the_frames():
    series = np.random.default_rng(0).normal(size=(7, 3))
    longer = stretch(series, 2)
    np.testing.assert_allclose(longer[::2], series)
    np.testing.assert_allclose(longer[1:-1:2], (series[1:] + series[:-1]) / 2)
    np.testing.assert_allclose(longer[-1], series[-1])


def test_bad_settings():
    with pytest.raises(ConfigError):
        JapaneseVowels(threshold=0.0)
    with pytest.raises(ConfigError, match="'first' or 'mean'"):
        JapaneseVowels(start="zero")
