"""Files in SHD's layout are read as written; everything else is refused with what was found and what to do."""

from __future__ import annotations

import gzip
import random

import h5py
import numpy as np
import pytest

from delaykit import DataError
from delaykit_lab import SpikeFiles, bin_events, locate, mark_for_tonic, read_events


def test_reads_what_was_written(tmp_path, writer):
    written = writer(tmp_path / "a.h5")
    events = read_events(tmp_path / "a.h5")
    for name in ("times", "units"):
        for got, wanted in zip(getattr(events, name), written[name], strict=True):
            np.testing.assert_array_equal(got, wanted)
    np.testing.assert_array_equal(events.labels, written["labels"])
    np.testing.assert_array_equal(events.speakers, written["speaker"])
    assert events.keys == ("digit 0", "digit 1", "digit 2", "digit 3")


def test_tonic_reads_the_same_folder(tonic_folder, monkeypatch):
    tonic = pytest.importorskip("tonic", reason="tonic is not installed")
    monkeypatch.setattr(tonic.datasets.SHD, "download", lambda self: pytest.fail("tonic went to the network"))
    markers = mark_for_tonic(tonic_folder)
    assert [marker.name for marker in markers] == ["shd_test.h5.zip", "shd_train.h5.zip"]
    theirs = tonic.datasets.SHD(save_to=str(tonic_folder), train=False)
    ours = read_events(locate(tonic_folder, "test"))
    assert len(theirs) == len(ours) == 12
    for sample in range(len(ours)):
        spikes, label = theirs[sample]
        np.testing.assert_array_equal(spikes["x"], ours.units[sample])
        np.testing.assert_array_equal(spikes["t"], (ours.times[sample].astype(np.float64) * 1e6).astype(int))
        assert label == ours.labels[sample]


def test_locate_tonic_folder_plain_folder_sibling_and_single(tmp_path, tonic_folder, writer):
    assert locate(tonic_folder, "train") == tonic_folder / "SHD" / "shd_train.h5"
    assert locate(tonic_folder / "SHD", "test") == tonic_folder / "SHD" / "shd_test.h5"
    assert locate(tonic_folder / "SHD" / "shd_train.h5", "test") == tonic_folder / "SHD" / "shd_test.h5"
    (tmp_path / "other").mkdir()
    writer(tmp_path / "other" / "my_train_set.h5")
    assert locate(tmp_path / "other", "train").name == "my_train_set.h5"


def test_only_the_last_mention_of_a_split_is_replaced(tmp_path, writer):
    for name in ("test_bench_train.h5", "test_bench_test.h5"):
        writer(tmp_path / name)
    assert locate(tmp_path / "test_bench_train.h5", "test").name == "test_bench_test.h5"


def test_recordings_that_are_still_packed_are_not_passed_over_for_a_smaller_set(tmp_path, writer):
    writer(tmp_path / "tiny_train.h5")
    (tmp_path / "all_train.h5.xz").write_bytes(b"\xfd7zXZ packed")
    with pytest.raises(DataError, match=r"tiny_train\.h5.*all_train\.h5\.xz"):
        locate(tmp_path, "train")
    assert locate(tmp_path / "tiny_train.h5", "train").name == "tiny_train.h5"
    (tmp_path / "tiny_train.h5").rename(tmp_path / "all_train.h5")
    assert locate(tmp_path, "train").name == "all_train.h5"


@pytest.mark.parametrize("case", ["nothing", "two", "no sibling", "unnamed"])
def test_locate_refuses(tmp_path, writer, case):
    path = tmp_path
    if case == "nothing":
        path = tmp_path / "missing"
    elif case == "two":
        writer(tmp_path / "a_train.h5"), writer(tmp_path / "b_train.h5")
    else:
        path = tmp_path / ("a_test.h5" if case == "no sibling" else "a.h5")
        writer(path)
    with pytest.raises(DataError) as problem:
        locate(path, "train")
    assert problem.value.fix


def test_a_missing_file(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        read_events(tmp_path / "none.h5")


def test_a_packed_file_says_how_to_unpack_it(tmp_path):
    (tmp_path / "a.h5.gz").write_bytes(gzip.compress(b"x"))
    with pytest.raises(DataError, match="gunzip -k a.h5.gz"):
        read_events(tmp_path / "a.h5.gz")


def test_a_foreign_file(tmp_path):
    (tmp_path / "a.h5").write_text("<html>404</html>")
    with pytest.raises(DataError, match="begins with"):
        read_events(tmp_path / "a.h5")


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9, 0.99])
def test_a_truncated_file(tmp_path, writer, share):
    writer(tmp_path / "a.h5")
    whole = (tmp_path / "a.h5").read_bytes()
    (tmp_path / "b.h5").write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(DataError, match="truncated"):
        read_events(tmp_path / "b.h5")


def test_an_empty_file(tmp_path):
    (tmp_path / "a.h5").touch()
    with pytest.raises(DataError):
        read_events(tmp_path / "a.h5")


def test_hdf5_of_another_layout_lists_what_it_holds(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["images"] = np.zeros(3)
    with pytest.raises(DataError, match="images"):
        read_events(tmp_path / "a.h5")


def test_fixed_length_times_are_another_layout(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["spikes/times"] = np.zeros((3, 4))
    with pytest.raises(DataError, match="variable-length"):
        read_events(tmp_path / "a.h5")


@pytest.mark.parametrize(("entry", "values", "message"), [
    ("labels", np.zeros(5, np.uint16), "numbers of samples"),
    ("labels", np.full(24, 9, np.uint16), "labels"),
    ("labels", np.zeros(24), "integer"),
    ("speaker", np.zeros(5, np.uint16), "numbers of samples"),
    ("units", [np.array([1], np.uint16)] * 24, "in sample 0"),
])  # fmt: skip
def test_values_that_make_no_sense(tmp_path, writer, entry, values, message):
    writer(tmp_path / "a.h5", **{entry: values})
    with pytest.raises(DataError, match=message):
        read_events(tmp_path / "a.h5")


@pytest.mark.parametrize("times", [[0.1, np.nan], [-0.1, 0.2], [0.2, 0.1], [0.1, np.inf]])
def test_times_must_be_finite_sorted_and_positive(tmp_path, writer, times):
    one = {"times": [np.array(times, np.float16)], "units": [np.array([1, 2], np.uint16)]}
    writer(tmp_path / "a.h5", samples=1, **one)
    with pytest.raises(DataError, match="finite, sorted"):
        read_events(tmp_path / "a.h5")


def test_a_unit_beyond_the_cochlea(tmp_path, writer):
    writer(tmp_path / "a.h5", n_units=900)
    with pytest.raises(DataError, match="0 .. 699"):
        read_events(tmp_path / "a.h5")


def test_the_task_bins_both_files_and_holds_out_every_class(tonic_folder):
    task = SpikeFiles(str(tonic_folder), limit=20)
    splits = task.splits(seed=0)
    assert task.classes == 4 and splits.train.spikes.shape == (100, 16, 140)
    assert len(splits.validation) == 4 and len(splits.test) == 12
    assert sorted(splits.validation.labels.tolist()) == [0, 1, 2, 3]
    counts = sum(len(times) for times in read_events(locate(tonic_folder, "test")).times)
    assert int(splits.test.spikes.sum()) == counts


def test_the_task_refuses_labels_that_training_never_shows(tmp_path, writer):
    writer(tmp_path / "a_train.h5", classes=2)
    writer(tmp_path / "a_test.h5", classes=3)
    with pytest.raises(DataError, match="no training sample"):
        SpikeFiles(str(tmp_path)).splits(seed=0)


@pytest.mark.parametrize(("bad", "message"), [
    ({"units": [np.array([-3], np.int32)], "times": [np.array([0.1], np.float16)]}, "units -3 .. -3 in sample 0"),
    ({"units": [np.array([2**63 + 5], np.uint64)], "times": [np.array([0.1], np.float16)]}, "expected 0 .. 699"),
])  # fmt: skip
def test_signed_and_huge_units_never_land_in_other_channels(tmp_path, writer, bad, message):
    writer(tmp_path / "a.h5", samples=1, classes=1, base_units=bad["units"][0].dtype, **bad)
    with pytest.raises(DataError, match=message):
        read_events(tmp_path / "a.h5")


def test_a_time_beyond_all_steps_is_dropped_and_never_counts_at_step_0(tmp_path, writer):
    late = {"times": [np.array([0.1, 1e300])], "units": [np.array([1, 2], np.uint16)]}
    writer(tmp_path / "a.h5", samples=1, classes=1, base_times=np.float64, **late)
    events = read_events(tmp_path / "a.h5")
    binned = bin_events(events, 10.0, 700, 1000.0)
    assert binned.dropped == 1 and int(binned.frames.sum()) == 1 and binned.frames[10, 0, 1] == 1
    with pytest.raises(DataError, match="a spike at 1e\\+300 s"):
        bin_events(events, 10.0, 700)


# The first two hang inside the HDF5 library, the third crashes it as soon as it is read.
@pytest.mark.parametrize(("flip", "seconds"), [(59, 2.0), (495, 2.0), (5098, 60.0)])
def test_a_flipped_bit_never_hangs_or_ends_the_process(tmp_path, writer, monkeypatch, flip, seconds):
    from delaykit_lab.data import bounded

    monkeypatch.setattr(bounded, "SECONDS", seconds)
    writer(tmp_path / "a.h5", samples=6)
    content, source = bytearray((tmp_path / "a.h5").read_bytes()), random.Random(flip)
    place = source.randrange(len(content))
    content[place] ^= 1 << source.randrange(8)
    (tmp_path / "b.h5").write_bytes(bytes(content))
    with pytest.raises(DataError, match="did not come back|crashed"):
        read_events(tmp_path / "b.h5")


def test_another_file_under_the_same_name_is_read_anew(tonic_folder, writer):
    first = SpikeFiles(str(tonic_folder)).splits(seed=0).test
    assert SpikeFiles(str(tonic_folder)).splits(seed=0).test.spikes is first.spikes  # binned once a process
    writer(tonic_folder / "SHD" / "shd_test.h5", samples=13, seed=5)
    assert len(SpikeFiles(str(tonic_folder)).splits(seed=0).test) == 13
