"""tonic's data sets become frames, from files made here in tonic's layout; wrong files get the sentence one needs."""

from __future__ import annotations

import dataclasses
import struct
import zipfile

import numpy as np
import pytest
import torch

from delaykit import ConfigError, DataError
from delaykit_lab import NMNIST, PSMNIST, SHD, SMNIST, SSC, DVSGesture, bin_events, read_events
from delaykit_lab.data import tonic_cache
from delaykit_lab.tasks import tonic_task


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    import tonic.download_utils

    monkeypatch.setattr(tonic.download_utils, "_urlretrieve", lambda *_: pytest.fail("tonic went to the network"))


@pytest.fixture
def shd(tmp_path, writer):
    for seed, (split, samples) in enumerate((("train", 200), ("test", 40))):
        (tmp_path / "SHD").mkdir(exist_ok=True)
        writer(tmp_path / "SHD" / f"shd_{split}.h5", samples=samples, classes=20, seed=seed)
    return tmp_path


def test_shd_is_binned_as_our_own_reader_bins_it(shd):
    task = SHD(shd, subset=True, duration_ms=905.0)
    splits = task.splits(seed=0)
    ours = bin_events(read_events(shd / "SHD" / "shd_test.h5"), 10.0, 140, 905.0).frames[:91]
    ours[90] = 0  # spikes after 905 ms, which tonic's CropTime leaves out
    theirs = splits.test.spikes.numpy().copy()
    theirs[90] = 0
    np.testing.assert_array_equal(theirs, ours)
    assert len(splits.train) == 180 and len(splits.validation) == 20 and task.classes == 20
    assert splits.validation.labels.bincount().tolist() == [1] * 20


def test_a_limit_reads_only_the_chosen_samples_and_every_class(shd, monkeypatch):
    import tonic

    asked, real = [], tonic.datasets.SHD.__getitem__
    monkeypatch.setattr(tonic.datasets.SHD, "__getitem__", lambda self, k: asked.append(k) or real(self, k))
    splits = SHD(shd, subset=True, limit=40, validation=0.5, keep_frames=False).splits(seed=1)
    assert len(splits.train) == len(splits.validation) == 20 and len(asked) == 40 + 40
    assert splits.train.labels.bincount().tolist() == [1] * 20


def test_frames_are_kept_and_made_anew_when_the_file_changes(shd, writer, monkeypatch):
    task = SHD(shd, subset=True)
    first = task.splits(0)
    monkeypatch.setattr(SHD, "_bin", lambda *_: pytest.fail("binned again"))
    monkeypatch.setattr(tonic_cache, "run_bounded", lambda *_: pytest.fail("read through again"))
    monkeypatch.setattr(tonic_task, "check_apart", lambda *_: pytest.fail("compared again"))
    again = task.splits(0)
    assert torch.equal(first.train.spikes, again.train.spikes) and torch.equal(first.test.labels, again.test.labels)
    monkeypatch.undo()
    writer(shd / "SHD" / "shd_test.h5", samples=60, classes=20, seed=9)
    assert len(task.splits(0).test) == 60


def test_a_folder_that_cannot_be_written_is_done_without(shd, monkeypatch):
    (shd / "delaykit-frames").write_text("a file where the folder would be")
    with pytest.warns(UserWarning, match="could not be kept"):
        SHD(shd, subset=True).splits(0)


def test_ssc_brings_its_own_validation_set(tmp_path, writer):
    (tmp_path / "SSC").mkdir()
    for seed, (split, samples) in enumerate((("train", 70), ("valid", 35), ("test", 36))):
        writer(tmp_path / "SSC" / f"ssc_{split}.h5", samples=samples, classes=35, seed=seed)
    splits = SSC(tmp_path, subset=True).splits(0)
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [70, 35, 36]
    limited = SSC(tmp_path, subset=True, limit=35).splits(0)
    assert len(limited.train) == 35 and torch.equal(limited.validation.spikes, splits.validation.spikes)


def test_a_validation_set_copied_over_the_test_set_is_caught(tmp_path, writer):
    (tmp_path / "SSC").mkdir()
    writer(tmp_path / "SSC" / "ssc_train.h5", samples=70, classes=35, seed=0)
    for split in ("valid", "test"):
        writer(tmp_path / "SSC" / f"ssc_{split}.h5", samples=35, classes=35, seed=1)
    for _ in range(2):  # what was refused once is refused again
        with pytest.raises(DataError, match="35 of 35 samples that are both in validation and in test"):
            SSC(tmp_path, subset=True).splits(0)


def test_other_numbers_than_published_are_no_shd(shd):
    with pytest.raises(DataError, match="200 samples; expected 8156 as published"):
        SHD(shd).splits(0)
    assert "part of it" in SHD(shd, subset=True).title() and "part" not in SHD(shd).title()


@pytest.mark.parametrize(("task", "sentence"), [
    (SHD, "no shd_train.h5.*put shd_train.h5 there, or its archive shd_train.h5.zip"),
    (SSC, "no ssc_train.h5.*put ssc_train.h5 there"),
    (NMNIST, "no Train.*put Train there, or its archive train.zip"),
    (DVSGesture, "no ibmGestureTrain.*put ibmGestureTrain there, or its archive ibmGestureTrain.tar.gz"),
    (SMNIST, "no train-images-idx3-ubyte and train-labels-idx1-ubyte.*unpacked, into"),
])  # fmt: skip
def test_missing_files_are_told_without_a_network(tmp_path, task, sentence):
    with pytest.raises(DataError, match=sentence):
        task(tmp_path).splits(0)
    with pytest.raises(DataError, match="the folder that tonic calls save_to"):
        task().splits(0)


def test_a_half_downloaded_archive_is_named_with_both_checksums(tmp_path):
    (tmp_path / "SHD").mkdir()
    (tmp_path / "SHD" / "shd_train.h5.zip").write_bytes(b"PK\x03\x04 and then the line broke")
    with pytest.raises(DataError, match="md5 .* half downloaded, or another file; expected md5 f3252aeb.* delete it"):
        SHD(tmp_path).splits(0)


def test_a_whole_archive_is_unpacked(tmp_path, writer, monkeypatch):
    import hashlib

    import tonic

    folder = tmp_path / "SHD"
    folder.mkdir()
    for seed, split in enumerate(("train", "test")):
        writer(tmp_path / f"shd_{split}.h5", samples=60, classes=20, seed=seed)
        archive = folder / f"shd_{split}.h5.zip"
        with zipfile.ZipFile(archive, "w") as file:
            file.write(tmp_path / f"shd_{split}.h5", f"shd_{split}.h5")
        digest = hashlib.md5(archive.read_bytes(), usedforsecurity=False).hexdigest()
        monkeypatch.setattr(tonic.datasets.SHD, f"{split}_md5", digest)
    assert len(SHD(tmp_path, subset=True, validation=0.4).splits(0).test) == 60


def test_a_truncated_file_and_a_page_instead_of_one(shd):
    file = shd / "SHD" / "shd_train.h5"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="probably truncated"):
        SHD(shd, subset=True).splits(0)
    file.write_text("<html>404</html>")
    with pytest.raises(DataError, match="begins with"):
        SHD(shd, subset=True).splits(0)


def test_hostile_units_and_labels_are_refused(tmp_path, writer):
    (tmp_path / "SHD").mkdir()
    for split in ("train", "test"):
        writer(tmp_path / "SHD" / f"shd_{split}.h5", samples=40, classes=20, n_units=900)
    with pytest.raises(DataError, match=r"sample \d+: found x = .* expected 0 .. 699"):
        SHD(tmp_path, subset=True, validation=0.5).splits(0)
    labels = {"labels": np.full(40, 21, np.uint16), "keys": np.array([b"k"] * 22)}
    writer(tmp_path / "SHD" / "shd_train.h5", samples=40, classes=20, **labels)
    with pytest.raises(DataError, match="every class of 0 .. 19"):
        SHD(tmp_path, subset=True, validation=0.5).splits(0)


def write_saccades(folder, split, samples, seed):
    """N-MNIST's five bytes an event: x, y, then polarity and 23 bits of time."""
    rng, written = np.random.default_rng(seed), {}
    for k in range(samples):
        events = np.sort(rng.integers(0, 300_000, 50))
        x, y, p = rng.integers(0, 34, 50), rng.integers(0, 34, 50), rng.integers(0, 2, 50)
        rows = np.stack([x, y, p << 7 | events >> 16, events >> 8 & 255, events & 255], 1).astype(np.uint8)
        path = folder / "NMNIST" / split / str(k % 10)
        path.mkdir(parents=True, exist_ok=True)
        (path / f"{k:05d}.bin").write_bytes(rows.tobytes())
        written[k % 10, k] = (x, y, p, events)
    return [written[key] for key in sorted(written)]


def test_nmnist_without_ten_thousand_files_and_its_channels(tmp_path):
    write_saccades(tmp_path, "Train", 40, seed=0)
    test = write_saccades(tmp_path, "Test", 20, seed=1)
    task = NMNIST(tmp_path, 2, subset=True, validation=0.5)
    splits = task.splits(0)
    assert task.image == (2, 17, 17) and splits.test.spikes.shape == (31, 20, 578)
    for sample, (x, y, p, t) in enumerate(test):
        wanted = np.zeros((31, 578))
        np.add.at(wanted, (t // 10_000, (p * 17 + y // 2) * 17 + x // 2), 1)
        np.testing.assert_array_equal(splits.test.spikes[:, sample].numpy(), wanted)
    with pytest.raises(DataError, match="40 samples; expected 60000"):
        NMNIST(tmp_path).splits(0)
    first = dataclasses.replace(task, first_saccade=True).splits(0).test.spikes
    assert int(first[10:].sum()) == 0 and int(first.sum()) == int(splits.test.spikes[:10].sum())


def test_gestures_are_shrunk(tmp_path):
    rng = np.random.default_rng(0)
    for part, user in (("Train", "user01_led"), ("Test", "user24_led")):
        folder = tmp_path / "DVSGesture" / f"ibmGesture{part}" / user
        folder.mkdir(parents=True)
        for label in range(11):
            for copy in [""] if part == "Test" else ["", "x"]:
                where = folder if not copy else folder.with_name("user02_led")
                where.mkdir(exist_ok=True)
                rows = np.stack([rng.integers(0, 128, 30), rng.integers(0, 128, 30), rng.integers(0, 2, 30)], 1)
                times = np.sort(rng.integers(0, 2000, 30))  # in ms, as the files have them
                np.save(where / f"{label}.npy", np.concatenate([rows, times[:, None]], 1).astype(np.int64))
    splits = DVSGesture(tmp_path, subset=True, validation=0.5).splits(0)
    assert splits.test.spikes.shape == (100, 11, 2048) and int(splits.test.spikes.sum()) == 330
    assert splits.train.labels.tolist() == sorted(splits.train.labels.tolist()) or len(splits.train) == 11


def write_digits(folder, part, labels, seed):
    folder.mkdir(exist_ok=True)
    images = np.random.default_rng(seed).integers(0, 256, (len(labels), 28, 28)).astype(np.uint8)
    (folder / f"{part}-images-idx3-ubyte").write_bytes(struct.pack(">IIII", 2051, *images.shape) + images.tobytes())
    (folder / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 2049, len(labels)) + bytes(labels))
    return images


def test_sequential_digits_keep_every_spike_that_tonic_makes(tmp_path):
    write_digits(tmp_path / "smnist", "train", list(range(10)) * 2, 0)
    images = write_digits(tmp_path / "smnist", "t10k", list(range(10)), 1)
    plain, permuted = (task(tmp_path, 9, subset=True, validation=0.5).splits(0).test for task in (SMNIST, PSMNIST))
    assert plain.spikes.shape == permuted.spikes.shape == (784, 10, 10)
    flat = images.reshape(10, 784)
    np.testing.assert_array_equal(plain.spikes[:, :, 0].numpy().T, flat == 255)  # white pixels: tonic's number 0
    order = np.random.default_rng(0).permutation(784)
    np.testing.assert_array_equal(permuted.spikes[:, :, 0].numpy().T, flat[:, order] == 255)
    thresholds = np.linspace(0, 254, 4).astype(np.uint8)
    crossed = (flat[:, :-1, None] < thresholds) & (flat[:, 1:, None] >= thresholds)
    assert int(plain.spikes[:, :, 6:].sum()) == int(crossed.sum()) > 0


def test_idx_files_of_another_kind(tmp_path):
    write_digits(tmp_path / "smnist", "train", [0, 1], 0)
    (tmp_path / "smnist" / "train-images-idx3-ubyte").write_bytes(struct.pack(">IIII", 7, 1, 28, 28) + bytes(784))
    with pytest.raises(DataError, match="another layout"):
        SMNIST(tmp_path, subset=True).splits(0)


@pytest.mark.parametrize(("task", "options"), [
    (SHD, {"dt_ms": 0.0}), (SHD, {"channels": 33}), (SHD, {"limit": 0}), (SHD, {"validation": 1.0}),
    (NMNIST, {"shrink": 3}), (SMNIST, {"levels": 10}), (SSC, {"duration_ms": float("nan")}),
])  # fmt: skip
def test_options_out_of_range(task, options):
    with pytest.raises(ConfigError, match=f"{task.__name__}.{next(iter(options))}"):
        task("anywhere", **options)


def test_more_frames_than_memory_are_refused_before_they_are_made(tmp_path, monkeypatch, shd):
    monkeypatch.setattr(tonic_task, "LARGEST", 1e3)
    with pytest.raises(DataError, match="use limit=, a larger dt_ms or fewer channels"):
        SHD(shd, subset=True).splits(0)
