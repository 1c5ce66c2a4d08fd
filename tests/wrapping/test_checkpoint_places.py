"""Where a checkpoint is written and read: beside a user's own files, through links, and where there is no file."""

from __future__ import annotations

import json
import os
import struct

import pytest
import torch
from torch import nn

import delaykit as dk
from delaykit.sealed import check_writable, commit, read_file
from delaykit.testing.messages import check_told


def wrapped(value=1.0):
    return dk.wrap_(nn.Sequential(nn.Linear(2, 2)), {"0": dk.At(dk.FreeDelay("axonal", init=value), reset="manual")})


def bare():
    return nn.Sequential(nn.Linear(2, 2))


@pytest.mark.parametrize("text", ['{"my": "settings"}', "", "[]", '{"format": 1, "writer": "delaykit", "sha256": "0"}'])
@pytest.mark.parametrize("ending", [".json", ".json.part"])
def test_a_file_of_the_user_beside_a_checkpoint_stays(tmp_path, ending, text):
    beside = tmp_path / f"net{ending}"
    beside.write_text(text)
    for value in (1.0, 2.0):
        dk.save(wrapped(value), tmp_path / "net")
    assert beside.read_text() == text
    assert dk.load(bare(), tmp_path / "net")[0].dk.delay.delay.tolist() == [2.0, 2.0]


def test_a_folder_of_that_name_stays_too(tmp_path):
    (tmp_path / "net.json").mkdir()
    dk.save(wrapped(), tmp_path / "net")
    assert (tmp_path / "net.json").is_dir()


def test_a_link_is_followed_and_stays(tmp_path):
    (tmp_path / "disk").mkdir()
    link, real = tmp_path / "net.safetensors", tmp_path / "disk" / "real.safetensors"
    link.symlink_to(real)
    for value in (1.0, 2.0):  # the first time the link leads nowhere yet
        dk.save(wrapped(value), tmp_path / "net")
    assert link.is_symlink() and dk.load(bare(), tmp_path / "net")[0].dk.delay.delay.tolist() == [2.0, 2.0]
    assert real.read_bytes() == link.read_bytes() and [p.name for p in real.parent.iterdir()] == ["real.safetensors"]


def pipe(path):
    os.mkfifo(path)


NO_FILES = {
    "pipe": pipe, "device": lambda path: path.symlink_to("/dev/zero"), "folder": lambda path: path.mkdir(),
    "sparse": lambda path: os.truncate(os.open(path, os.O_CREAT | os.O_WRONLY), 2**46),
}  # fmt: skip


@pytest.mark.parametrize("kind", NO_FILES)
def test_what_is_no_file_is_told_and_not_waited_for(tmp_path, kind):
    try:
        NO_FILES[kind](tmp_path / "net.safetensors")
    except OSError as error:
        pytest.skip(f"this disk has none: {error}")
    check_told(lambda: dk.load(bare(), tmp_path / "net"))
    with pytest.raises(OSError, match=r"net.safetensors"):
        read_file(tmp_path / "net.safetensors")


@pytest.mark.parametrize("dtype", ["F4", "F6_E2M3", "F8_E8M0"])
def test_a_number_that_torch_lacks_is_told(tmp_path, dtype):
    header = json.dumps({"a": {"dtype": dtype, "shape": [8], "data_offsets": [0, 8 if "8" in dtype else 4]}}).encode()
    (tmp_path / "net.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(8))
    check_told(lambda: dk.load(bare(), tmp_path / "net"))


@pytest.mark.parametrize("name", ["a\ud800", "a\0b", "x" * 300])
def test_a_name_that_is_none_is_told(tmp_path, name):
    for act in (lambda: dk.save(wrapped(), tmp_path / name), lambda: dk.load(bare(), tmp_path / name),
                lambda: commit(tmp_path / name, b""), lambda: check_writable(tmp_path / name)):  # fmt: skip
        assert "space" not in str(check_told(act))


def test_whether_a_file_can_be_written_is_asked_without_a_trace(tmp_path):
    check_writable(tmp_path / "new" / "run")
    assert not list((tmp_path / "new").iterdir())
    (tmp_path / "run").write_bytes(b"old")
    check_writable(tmp_path / "run")
    assert (tmp_path / "run").read_bytes() == b"old"
    torch.manual_seed(0)
    for path in (tmp_path, tmp_path / "run" / "below"):
        check_told(lambda path=path: check_writable(path))
