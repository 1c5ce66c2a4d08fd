"""A data file with a changed byte, which has no checksum: refused, or values within the ranges that are declared."""

from __future__ import annotations

import gzip
import io
import os
import struct
import subprocess
import sys
import tracemalloc
import types

import numpy as np
import pytest
import torch

from delaykit import DataError
from delaykit.testing.faults import how_many
from delaykit.testing.faults.damage import check_changed_bytes, run_in_a_copy
from delaykit_lab import NMNIST, DVSGesture, Frames, bin_events, read_events
from delaykit_lab.data import bounded, japanese_vowels
from delaykit_lab.data.frame_cache import cached_frames
from delaykit_lab.data.idx import TYPES, read_idx
from delaykit_lab.data.japanese_vowels import read_utterances
from delaykit_lab.tasks import mnist
from delaykit_lab.tasks.mnist import MNIST

MANY = pytest.param(how_many(400, 2000), marks=pytest.mark.slow)


def test_the_reader_of_a_file_ends_without_its_parent(tmp_path):
    resource = pytest.importorskip("resource", reason="limits of processes are POSIX")
    (tmp_path / "a.h5").write_bytes(bytes(4_000_000))
    text = "import sys, resource; from delaykit_lab.data.hdf5_child import limit_itself; limit_itself(sys.argv[1]); "
    text += "print(*resource.getrlimit(resource.RLIMIT_CPU))"
    words = [sys.executable, "-c", text, str(tmp_path / "a.h5")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    said = subprocess.run(words, env=environment, capture_output=True, text=True, check=True).stdout.split()
    assert said == ["122", str(resource.getrlimit(resource.RLIMIT_CPU)[1])]


@pytest.mark.parametrize("flips", [10, pytest.param(how_many(150, 2000), marks=pytest.mark.slow)])
def test_spike_trains(tmp_path, writer, monkeypatch, flips):
    stand_in = types.SimpleNamespace(run=run_in_a_copy, TimeoutExpired=subprocess.TimeoutExpired)
    monkeypatch.setattr(bounded, "subprocess", stand_in)  # two thousand new processes would take half an hour
    writer(tmp_path / "a.h5", samples=6)

    def read(content):
        (tmp_path / "b.h5").write_bytes(content)
        return read_events(tmp_path / "b.h5")

    def judge(events):
        assert len(events) and len(events.labels) == len(events.times) == len(events.units)
        assert 0 <= events.labels.min() and (not events.keys or events.labels.max() < len(events.keys))
        for when, which in zip(events.times, events.units, strict=True):
            assert len(when) == len(which) and np.isfinite(when).all() and (np.diff(when) >= 0).all()
            assert not len(which) or (0 <= when[0] and 0 <= which.min() and which.max() < 700)
        binned = bin_events(events, 10.0, 700, 1000.0)
        assert int(binned.frames.sum()) + binned.dropped == sum(map(len, events.times))

    judge(read((tmp_path / "a.h5").read_bytes()))
    refused = check_changed_bytes((tmp_path / "a.h5").read_bytes(), read, judge, flips)
    assert flips < 100 or 0 < refused < flips  # a file holds addresses: few bytes may all be of one kind


@pytest.mark.slow
def test_spike_trains_that_ask_for_all_memory(tmp_path, writer):
    """A size in the file says 60 GB of labels, which are filled with zeros."""
    import h5py

    writer(tmp_path / "a.h5", samples=6)
    with h5py.File(tmp_path / "a.h5", "a") as file:
        del file["labels"]
        file.create_dataset("labels", shape=(30 * 2**30,), chunks=(2**20,), dtype="u2")
    with pytest.raises(DataError, match="cannot be read"):
        read_events(tmp_path / "a.h5")


@pytest.mark.parametrize("flips", [100, MANY])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("code", TYPES)
def test_idx(tmp_path, code, packed, flips):
    array = np.arange(24, dtype=TYPES[code]).reshape(2, 3, 4)
    content = struct.pack(">4B3I", 0, 0, code, 3, 2, 3, 4) + array.tobytes()

    def read(content):
        (tmp_path / "a.idx").write_bytes(content)
        return read_idx(tmp_path / "a.idx")

    def judge(found):
        assert found.size == 24 and found.dtype.kind in "uif" and np.isfinite(found).all()

    content = gzip.compress(content, mtime=0) if packed else content
    np.testing.assert_array_equal(read(content), array)
    refused = check_changed_bytes(content, read, judge, flips)
    assert refused > (0.8 if packed else 0.05) * flips


@pytest.mark.parametrize("flips", [100, MANY])
@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "train-labels-idx1-ubyte"])
def test_mnist(tmp_path, monkeypatch, name, flips):
    monkeypatch.setattr(mnist, "SAMPLES", {"train": 4, "t10k": 1})
    for part, samples in mnist.SAMPLES.items():
        images, labels = bytes(range(0, 196)) * 4 * samples, bytes(range(samples))
        (tmp_path / f"{part}-images-idx3-ubyte").write_bytes(struct.pack(">4B3I", 0, 0, 8, 3, samples, 28, 28) + images)
        (tmp_path / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">4BI", 0, 0, 8, 1, samples) + labels)

    def read(content):
        (tmp_path / name).write_bytes(content)
        return MNIST(str(tmp_path)).published()

    def judge(found):
        for part, samples in zip(found, (4, 1), strict=True):
            assert part.values.shape == (samples, 784) and 0 <= part.values.min() and part.values.max() <= 1
            assert 0 <= part.labels.min() and part.labels.max() <= 9

    sound = (tmp_path / name).read_bytes()
    judge(read(sound))
    check_changed_bytes(sound[:60], lambda head: read(head + sound[60:]), judge, flips)  # where all but pixels are


@pytest.mark.parametrize("flips", [100, MANY])
def test_utterances(tmp_path, monkeypatch, flips):
    monkeypatch.setattr(japanese_vowels, "UTTERANCES", {"train": 2})
    lines = [":".join([*(["0.5,-1.25e-1,3"] * 12), str(speaker)]) for speaker in (1, 9)]
    path = tmp_path / "JapaneseVowels_TRAIN.ts"

    def read(content):
        path.write_bytes(content)
        return read_utterances("train", tmp_path)

    def judge(found):
        assert len(found.series) == 2 and all(np.isfinite(one).all() and one.shape[1] == 12 for one in found.series)
        assert 0 <= found.labels.min() and found.labels.max() < 9

    assert 0 < check_changed_bytes("\n".join(["@data", *lines, ""]).encode(), read, judge, flips) < flips


@pytest.mark.parametrize("flips", [100, MANY])
@pytest.mark.parametrize("steps", [4, 1501])  # less than a block, and two blocks and a rest
def test_frames_that_were_kept_are_made_again(tmp_path, flips, steps):
    spikes = torch.randint(0, 9, (6 * steps + 1,), dtype=torch.uint8)[1:].reshape(steps, 3, 2)  # at an odd address
    frames = Frames(spikes, torch.tensor([0, 1, 0]))
    made = []

    def get():
        return cached_frames(tmp_path, {"dt": 1.0}, lambda: made.append(1) or frames)

    def read(content):
        file.write_bytes(content)
        return get()

    def judge(found):
        assert torch.equal(found.spikes, frames.spikes) and torch.equal(found.labels, frames.labels)

    get()
    [file] = tmp_path.iterdir()
    assert check_changed_bytes(file.read_bytes(), read, judge, flips) == 0 and len(made) > 0.9 * flips


def camera(kind, folder, **options):
    return kind(folder, subset=True, validation=0.5, keep_frames=False, **options)


def saccades(count=60):
    """N-MNIST's five bytes an event: x, y, then polarity and 23 bits of time; the last row: time overflowed."""
    rng = np.random.default_rng(0)
    when, x, y, p = np.sort(rng.integers(0, 300_000, count)), *(rng.integers(0, k, count) for k in (34, 34, 2))
    y[-1] = 240
    return np.stack([x, y, p << 7 | when >> 16, when >> 8 & 255, when & 255], 1).astype(np.uint8).tobytes()


def gestures(count=60):
    rows = np.random.default_rng(0).integers(0, [128, 128, 2, 2000], (count, 4))  # times in ms
    rows[:, 3].sort()
    written = io.BytesIO()
    np.save(written, rows)
    return written.getvalue()


CAMERAS = {
    "saccades": (NMNIST, saccades, "NMNIST/{}/0/0000{}.bin", ("Train", "Test"), {"shrink": 2}),
    "gestures": (DVSGesture, gestures, "DVSGesture/ibmGesture{}/user01_led/{}.npy", ("Train", "Test"), {"shrink": 8}),
}


@pytest.mark.parametrize("flips", [20, pytest.param(how_many(200, 2000), marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", CAMERAS)
def test_events_of_cameras(tmp_path, name, flips):
    kind, make, pattern, parts, options = CAMERAS[name]
    sound, task = make(), camera(kind, tmp_path, **options)
    for part in parts:
        for k in range(4 if part == "Train" else 1):
            path = tmp_path / pattern.format(part, k)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(make(50 + k))

    def read(content):
        path.write_bytes(content)
        dataset = task.open("test")
        return task._bin("test", dataset, task.targets(dataset), np.zeros(1, int))

    def judge(frames):
        assert frames.spikes.shape == (task.steps, 1, task.channels) and frames.spikes.dtype == torch.uint8
        assert 0 <= int(frames.spikes.sum()) <= 60 and len(frames.labels) == 1

    judge(read(sound))
    assert int(read(sound).spikes.sum()) > 40
    check_changed_bytes(sound, read, judge, flips)
    for length in range(0, len(sound), 7):
        check_changed_bytes(sound[:length] + b"\0", read, judge, 1)  # a copy that was cut


@pytest.mark.parametrize("sizes", [(4, 3), (2**31, 2)])
def test_a_packed_file_is_unpacked_as_far_as_its_header_asks(tmp_path, sizes):
    """A packed file of zeros is a thousandth of what it unpacks to."""
    content = struct.pack(">4B2I", 0, 0, 8, 2, *sizes) + bytes(50_000_000)
    (tmp_path / "a.idx").write_bytes(gzip.compress(content, mtime=0, compresslevel=1))
    tracemalloc.start()
    with pytest.raises(DataError, match="bytes; expected"):
        read_idx(tmp_path / "a.idx")
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < (20_000_000 if sizes[0] == 4 else 200_000_000)


def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.idx")
    with pytest.raises(DataError, match="not a plain file"):
        read_idx(tmp_path / "a.idx")


def test_a_number_that_is_not_finite_is_named(tmp_path):
    (tmp_path / "a.idx").write_bytes(struct.pack(">4BI", 0, 0, 0x0D, 1, 2) + np.array([1, np.nan], ">f4").tobytes())
    with pytest.raises(DataError, match="NaN or infinite"):
        read_idx(tmp_path / "a.idx")
