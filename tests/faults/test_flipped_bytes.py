"""One byte of a checkpoint changed anywhere: refused, or tensors and plan equal to the bit."""

from __future__ import annotations

import pytest
import torch

import delaykit as dk
from delaykit.wrapping.container import unpack


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "d"
    net = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 2))
    rules = {"0": dk.FreeDelay("axonal", kernel="triangle", spread=1.5), "1": dk.FreeDelay("synaptic", max_delay=7)}
    dk.wrap_(net, {name: dk.At(rule, reset="manual") for name, rule in rules.items()})
    dk.save(net, path, with_model=True)
    return path.with_suffix(".safetensors").read_bytes()


def equal(one, other):
    return one[0] == other[0] and one[1].keys() == other[1].keys() and all(
        v.dtype == other[1][k].dtype and torch.equal(v, other[1][k]) for k, v in one[1].items()
    )  # fmt: skip


@pytest.mark.parametrize("flips", [200, pytest.param(2000, marks=pytest.mark.slow)])
def test_a_changed_byte_is_refused_or_changes_nothing(checkpoint, flips, tmp_path):
    generator = torch.Generator().manual_seed(flips)
    whole, refused = unpack(checkpoint, "d"), 0
    places = torch.randint(len(checkpoint), (flips,), generator=generator).tolist()
    changes = torch.randint(1, 256, (flips,), generator=generator).tolist()
    for place, change in zip(places, changes, strict=True):
        content = bytearray(checkpoint)
        content[place] ^= change
        try:
            found = unpack(bytes(content), "d")
            if found[0] is None:  # maybe of format 1, which has a second file
                tmp_path.joinpath("d.safetensors").write_bytes(content)
                dk.load(torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 2)), tmp_path / "d")
        except dk.CheckpointError as error:
            assert error.found and error.expected and error.fix
            refused += 1
        else:
            assert found[0] is not None and equal(found, whole), place
    assert refused > 0.9 * flips


def test_every_byte_of_the_plan_counts(checkpoint):
    text = checkpoint.index(b'{"format"')
    for place in range(text, text + 300):
        content = bytearray(checkpoint)
        content[place] ^= 1
        with pytest.raises(dk.CheckpointError):
            unpack(bytes(content), "d")
