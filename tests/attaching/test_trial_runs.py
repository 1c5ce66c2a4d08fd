"""What a sequence has under way survives a trial run in its middle, and so does what unwrapping leaves behind."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import delaykit as dk
from delaykit.attaching.trial_runs import lines_aside


def layer() -> nn.Sequential:
    net = nn.Sequential(nn.Linear(1, 1, bias=False))
    nn.init.ones_(net[0].weight)
    return dk.wrap_(net, {"0": dk.At(dk.FreeDelay("axonal", max_delay=4, init=2.0), reset="manual")})


def spike(value: float) -> torch.Tensor:
    return torch.full((1, 1), value)


def test_a_trial_run_begins_with_nothing_and_leaves_what_was_under_way() -> None:
    net = layer()
    seen = [net(spike(x)).item() for x in (1.0, 5.0)]
    with lines_aside(net):
        aside = [net(spike(x)).item() for x in (7.0, 0.0, 0.0)]
    seen += [net(spike(0.0)).item() for _ in range(3)]
    assert aside == [0.0, 0.0, 7.0] and seen == [0.0, 0.0, 1.0, 5.0, 0.0]


def test_it_is_given_back_after_an_error_too() -> None:
    net = layer()
    net(spike(3.0))
    with pytest.raises(ZeroDivisionError), lines_aside(net):
        net(spike(9.0))
        raise ZeroDivisionError
    assert [net(spike(0.0)).item() for _ in range(3)] == [0.0, 3.0, 0.0]
