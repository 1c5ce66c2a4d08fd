"""One byte of a checkpoint changed anywhere: refused, or tensors and plan equal to the bit."""

from __future__ import annotations

import pytest
import torch

import delaykit as dk
from delaykit.attaching.root import wrapping_of
from delaykit.testing.faults import how_many
from delaykit.testing.faults.damage import check_changed_bytes
from delaykit.wrapping.checkpoint.container import unpack


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "d"
    net = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 2))
    rules = {"0": dk.FreeDelay("axonal", kernel="triangle", spread=1.5), "1": dk.FreeDelay("synaptic", max_delay=7)}
    dk.wrap_(net, {name: dk.At(rule, reset="manual") for name, rule in rules.items()})
    dk.save(net, path, with_model=True)
    return path.with_suffix(".safetensors").read_bytes()


def bare():
    return torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 2))


@pytest.mark.parametrize("flips", [100, pytest.param(how_many(400, 2000), marks=pytest.mark.slow)])
def test_a_changed_byte_is_refused_or_changes_nothing(checkpoint, flips, tmp_path):
    def read(content):
        tmp_path.joinpath("d.safetensors").write_bytes(content)
        net = dk.load(bare(), tmp_path / "d")
        return net.state_dict(), [str(entry) for plan in wrapping_of(net).plans for entry in plan]

    def judge(found):
        assert found[1] == plan and found[0].keys() == state.keys()
        assert all(value.dtype == state[k].dtype and torch.equal(value, state[k]) for k, value in found[0].items())

    state, plan = read(checkpoint)
    assert check_changed_bytes(checkpoint, read, judge, flips) > 0.9 * flips


def test_every_byte_of_the_plan_counts(checkpoint):
    text = checkpoint.index(b'{"format"')
    for place in range(text, text + 300):
        content = bytearray(checkpoint)
        content[place] ^= 1
        with pytest.raises(dk.CheckpointError):
            unpack(bytes(content), "d")
