"""A save that is killed at any call of Python or C, twice in a row: an earlier checkpoint is there, or the new one."""

from __future__ import annotations

import random

import pytest
from torch import nn

import delaykit as dk
from delaykit.testing.faults import count_calls, how_many, killed_at


def wrapped(value):
    return dk.wrap_(nn.Sequential(nn.Linear(20, 2)), {"0": dk.At(dk.FreeDelay("axonal", init=value), reset="manual")})


def value_at(path):
    """Return the one value of a checkpoint's delays."""
    found = dk.load(nn.Sequential(nn.Linear(20, 2)), path)[0].dk.delay.delay.detach()
    assert bool((found == found[0]).all())
    return float(found[0])


@pytest.mark.slow
def test_saves_killed_at_random_calls_twice_in_a_row(tmp_path):
    nets = [wrapped(float(value)) for value in range(4)]
    path, source, kills = tmp_path / "run" / "d", random.Random(0), 0
    dk.save(nets[0], path)
    calls = count_calls(lambda: dk.save(nets[1], path), tmp_path)
    whole = {0.0}
    for turn in range(how_many(40, 250)):
        for value in (1, 2):
            within = "commit" if turn % 2 else None  # every other pair while the file itself is written
            most = calls if within is None else 60
            if killed_at(lambda value=value: dk.save(nets[value], path), source.randrange(1, most), within):
                kills += 1
            whole.add(float(value))
            assert value_at(path) in whole
    assert kills > how_many(60, 375)
    dk.save(nets[3], path)
    assert value_at(path) == 3.0
