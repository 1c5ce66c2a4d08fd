"""A delay of a million steps is refused before its memory is taken, and says what it would cost."""

from __future__ import annotations

import pytest
import torch
from rigs import late
from torch import nn

import delaykit as dk

LONG = dk.FreeDelay("axonal", max_delay=1e6, init=1e6)
SYNAPTIC = dk.FreeDelay("synaptic", max_delay=1e6, init=1e6)


def manual(config):
    net = nn.Sequential(nn.Linear(30, 2))
    return dk.wrap_(net, {"0": dk.At(config, reset="manual")})


def conv():
    net = nn.Sequential(nn.Conv2d(3, 2, 3))
    return dk.wrap_(net, {"0": dk.At(LONG, reset="manual")}, example=torch.zeros(1, 3, 4, 4))


@pytest.mark.parametrize(
    ("build", "shape"),
    [(lambda: manual(LONG), (32, 30)), (lambda: manual(SYNAPTIC), (32, 30)), (conv, (16, 3, 4, 4))],
    ids=["matrix", "synapses", "convolution"],
)
def test_a_line_that_would_take_gigabytes_is_refused(build, shape):
    net = build()
    with pytest.raises(dk.DelayRangeError, match=r"(3\.6|2\.9) GiB") as caught:
        net(torch.zeros(shape))
    assert caught.value.where == "0" and "steps" in caught.value.fix


def test_a_long_delay_that_costs_little_runs():
    net = manual(dk.FreeDelay("axonal", max_delay=1e6, init=2e4))
    with torch.no_grad():
        assert torch.isfinite(net(torch.zeros(1, 30))).all()
    net = dk.wrap_(nn.Sequential(nn.Linear(30, 2)), {"0": dk.At(LONG, reset="root", time_dim=0)})
    with torch.no_grad():
        assert torch.isfinite(net(torch.zeros(5, 32, 30))).all()  # a sequence says how long it is


def test_a_short_delay_may_be_as_large_as_it_is(monkeypatch):
    from delaykit.attaching.history import lines

    monkeypatch.setattr(lines, "LARGE_LINE", 100)
    assert torch.isfinite(manual(late(3))(torch.zeros(32, 30))).all()
