"""idx files and the digits task; only embedded or made data."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from delaykit import ConfigError, DataError, ShapeError
from delaykit.testing.messages import check_told
from delaykit_lab.data.idx import read_idx
from delaykit_lab.tasks import mnist
from delaykit_lab.tasks.mnist import MNIST, Images


def write_idx(path: Path, array: np.ndarray, code: int) -> None:
    head = struct.pack(">BBBB", 0, 0, code, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    content = head + array.astype(array.dtype.newbyteorder(">")).tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


@pytest.mark.parametrize("name", ["a.idx", "a.idx.gz"])
@pytest.mark.parametrize(
    ("dtype", "code"), [("u1", 8), ("i1", 9), ("i2", 0x0B), ("i4", 0x0C), ("f4", 0x0D), ("f8", 0x0E)]
)
def test_an_array_comes_back_from_its_file(tmp_path: Path, name: str, dtype: str, code: int) -> None:
    array = np.arange(24).reshape(2, 3, 4).astype(dtype)
    write_idx(tmp_path / name, array, code)
    read = read_idx(tmp_path / name)
    assert read.dtype == np.dtype(dtype) and np.array_equal(read, array)


def test_damaged_files_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "x.gz"
    with pytest.raises(DataError, match="x.gz"):
        read_idx(path)
    write_idx(path, np.zeros((4, 4), "u1"), 8)
    whole = path.read_bytes()
    path.write_bytes(whole[:-9])
    with pytest.raises(DataError, match="cannot be read"):
        read_idx(path)
    content = gzip.decompress(whole)
    for wrong, message in ((content[:-1], "27 bytes"), (content + b"0", "29 bytes"), (content[:6], "truncated"),
                           (b"\0\0\x07\x01", "00000701"), (b"PK", "504b")):  # fmt: skip
        path.write_bytes(wrong)
        with pytest.raises(DataError, match=message):
            read_idx(path)


FEW = {"train": 600, "t10k": 100}


def made_mnist(folder: Path) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    arrays = {}
    for part, samples in FEW.items():
        arrays[part] = rng.integers(0, 256, (samples, 28, 28), dtype=np.uint8)
        write_idx(folder / f"{part}-images-idx3-ubyte", arrays[part], 8)
        write_idx(folder / f"{part}-labels-idx1-ubyte", (np.arange(samples) % 10).astype("u1"), 8)
    return arrays


def test_mnist_is_read_in_the_order_of_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mnist, "SAMPLES", FEW)
    arrays = made_mnist(tmp_path)
    train, test = MNIST(str(tmp_path)).published()
    assert len(train) == 600 and len(test) == 100
    assert torch.equal(test.values[7], torch.from_numpy(arrays["t10k"][7].reshape(-1) / np.float32(255)))
    assert test.labels[:12].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]
    small = MNIST(str(tmp_path), limit=100).images(seed=1)
    assert (len(small.train), len(small.validation)) == (90, 10)
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(DataError, match="t10k-labels"):
        MNIST(str(tmp_path)).published()


def test_the_embedded_digits_never_call_themselves_mnist() -> None:
    task = MNIST()
    assert "MNIST" not in task.title() and "MNIST" in MNIST("x").title()
    images = task.images(seed=0)
    assert task.channels == images.train.values.shape[1] == 64
    assert float(images.train.values.min()) == 0 and float(images.train.values.max()) == 1
    again = task.images(seed=1)
    assert torch.equal(images.test.values, again.test.values)  # the seed never touches the test set
    assert not torch.equal(images.train.labels, again.train.labels)


def test_frames_are_latencies() -> None:
    frames = Images(torch.tensor([[1.0, 0.5, 0.0, 0.01]]), torch.tensor([3])).frames(10)
    assert frames.spikes[:, 0].nonzero().tolist() == [[0, 0], [5, 1], [9, 3]]
    splits = MNIST(steps=16).splits(seed=0)
    assert splits.train.spikes.shape == (16, 1295, 64) and int(splits.train.spikes.sum(0).max()) == 1


def test_what_does_not_fit_is_refused() -> None:
    for wrong in ({"steps": 0}, {"limit": 0}):
        with pytest.raises(ConfigError):
            MNIST(**wrong)
    with pytest.raises(ShapeError):
        Images(torch.zeros(2, 3), torch.zeros(3))


@pytest.mark.parametrize(("rank", "sizes"), [(65, [1] * 65), (255, [1] * 255), (8, [2**31] * 8)])
@pytest.mark.parametrize("rest", [b"", b"\0"])
def test_idx_headers_that_overflow_are_refused(tmp_path, rank, sizes, rest):
    header = bytes([0, 0, 8, rank]) + b"".join(size.to_bytes(4, "big") for size in sizes)
    (tmp_path / "a.idx").write_bytes(header + rest)
    with pytest.raises(DataError, match="dimensions|bytes"):
        read_idx(tmp_path / "a.idx")


def test_sizes_that_no_file_fills_are_told_in_a_sentence(tmp_path):
    (tmp_path / "a.idx").write_bytes(bytes([0, 0, 8, 60]) + b"\xff" * 240 + b"rest")
    check_told(lambda: read_idx(tmp_path / "a.idx"))


def test_an_idx_file_without_elements_that_numpy_cannot_shape_is_refused(tmp_path):
    sizes = [0] + [2**32 - 1] * 3
    (tmp_path / "a.idx").write_bytes(bytes([0, 0, 8, 4]) + b"".join(size.to_bytes(4, "big") for size in sizes))
    with pytest.raises(DataError, match="shape"):
        read_idx(tmp_path / "a.idx")
