"""A .nir file with a changed byte, which has no checksum: refused, or read as sound numbers, and never a hang."""

from __future__ import annotations

import subprocess
import sys
import types

import numpy as np
import pytest
import torch

nir = pytest.importorskip("nir", reason="reads NIR graphs")

import delaykit as dk  # noqa: E402
from delaykit.nir import reading  # noqa: E402
from delaykit.testing.faults import how_many  # noqa: E402
from delaykit.testing.faults.damage import check_changed_bytes, run_in_a_copy  # noqa: E402

ONE = np.full(3, 1.0)


@pytest.fixture
def file(tmp_path, monkeypatch):
    """Write a graph; let files be read by copies of this process: two thousand new ones would take half an hour."""
    stand_in = types.SimpleNamespace(run=run_in_a_copy, TimeoutExpired=subprocess.TimeoutExpired)
    monkeypatch.setattr(reading, "subprocess", stand_in)
    nodes = {
        "input": nir.Input(np.array([3])),
        "fc": nir.Affine(np.eye(3), ONE / 8),
        "late": nir.Delay(0.002 * ONE),
        "lif": nir.LIF(tau=0.01 * ONE, r=ONE, v_leak=0 * ONE, v_threshold=ONE, v_reset=0 * ONE),
        "output": nir.Output(np.array([3])),
    }
    names = list(nodes)
    nir.write(tmp_path / "sound.nir", nir.NIRGraph(nodes, list(zip(names, names[1:], strict=False))))
    return tmp_path / "sound.nir"


@pytest.mark.parametrize("flips", [8, pytest.param(how_many(150, 2000), marks=pytest.mark.slow)])
def test_a_changed_byte_is_refused_or_gives_sound_numbers(file, tmp_path, flips):
    def read(content):
        (tmp_path / "changed.nir").write_bytes(content)
        return dk.from_nir(tmp_path / "changed.nir", dt_ms=1.0)

    def judge(net):
        assert all(bool(value.isfinite().all()) for value in [*net.parameters(), *net.buffers()])
        assert net(torch.ones(4, 1, *net.shapes[0])).shape == (4, 1, *net.shapes[1])

    judge(read(file.read_bytes()))
    refused = check_changed_bytes(file.read_bytes(), read, judge, flips)
    assert flips < 100 or 0 < refused < flips  # a file holds times and addresses: few bytes may all be of one kind


def test_the_reader_of_a_file_ends_without_its_parent(file):
    """A process that is killed leaves its reader behind, which a damaged file may send round for ever."""
    pytest.importorskip("resource", reason="limits of processes are POSIX")
    text = reading.READ_APART + "print(*(resource.getrlimit(getattr(resource, k))[0] for k in sys.argv[4:]))"
    command = [sys.executable, "-c", text, str(file), str(4 * 2**30), "61", "RLIMIT_CPU", "RLIMIT_DATA"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.split() == ["61", str(4 * 2**30)]


@pytest.mark.slow
def test_a_file_that_asks_for_all_memory_is_refused(tmp_path):
    """A size in it says 60 GB, which are filled with zeros; the file has a few thousand bytes."""
    import h5py

    nir.write(tmp_path / "huge.nir", nir.NIRGraph({"a": nir.Scale(ONE)}, [], type_check=False))
    with h5py.File(tmp_path / "huge.nir", "a") as graph:
        node = graph["node/nodes/a"]
        del node["scale"]
        node.create_dataset("scale", shape=(60 * 2**27,), chunks=(2**20,), dtype="f8")
    with pytest.raises(dk.DataError, match=r"huge.nir"):
        dk.from_nir(tmp_path / "huge.nir", dt_ms=1.0)
