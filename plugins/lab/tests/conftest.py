"""A small file in the true SHD layout."""

from __future__ import annotations

import h5py
import numpy as np
import pytest


def write_spikes(
    path, samples=24, classes=4, seed=0, n_units=700, base_times=np.float16, base_units=np.uint16, **replace
):
    """Write ``samples`` random spike trains as the published files have them; ``replace`` overrides single entries."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(20, 60, samples)
    entries = {
        "times": [np.sort(rng.uniform(0, 0.9, n)).astype(np.float16) for n in lengths],
        "units": [rng.integers(0, n_units, n).astype(np.uint16) for n in lengths],
        "labels": (np.arange(samples) % classes).astype(np.uint16),
        "speaker": (np.arange(samples) % 3).astype(np.uint16),
        "keys": np.array([f"digit {k}".encode() for k in range(classes)]),
    } | replace
    with h5py.File(path, "w") as file:
        for name, base in (("times", base_times), ("units", base_units)):
            data = file.create_dataset(f"spikes/{name}", (len(entries[name]),), dtype=h5py.vlen_dtype(base))
            for k, values in enumerate(entries[name]):
                data[k] = values
        file["labels"] = entries["labels"]
        file["extra/speaker"] = entries["speaker"]
        file["extra/keys"] = entries["keys"]
    return entries


@pytest.fixture
def writer():
    return write_spikes


@pytest.fixture
def tonic_folder(tmp_path):
    """Tonic's cache layout: SHD/shd_train.h5 and SHD/shd_test.h5."""
    (tmp_path / "SHD").mkdir()
    write_spikes(tmp_path / "SHD" / "shd_train.h5", samples=40, seed=1)
    write_spikes(tmp_path / "SHD" / "shd_test.h5", samples=12, seed=2)
    return tmp_path
