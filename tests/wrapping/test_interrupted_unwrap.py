"""``dk.unwrap_`` that is interrupted at any line: called again, it comes to its end, and the model wraps again."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import nn

import delaykit as dk
from delaykit.attaching.root import wrapping_of

snn = pytest.importorskip("snntorch", reason="wraps snnTorch models")
norse = pytest.importorskip("norse.torch", reason="wraps Norse models")
LATE = dk.FreeDelay("axonal", max_delay=3)


class Looped(nn.Module):
    """The time loop is inside."""

    def __init__(self):
        super().__init__()
        self.fc, self.lif = nn.Linear(3, 3), snn.RLeaky(0.9, linear_features=3)

    def forward(self, x):
        spikes, mem = self.lif.init_rleaky()
        for step in x:
            spikes, mem = self.lif(self.fc(step), spikes, mem)
        return mem


def leaky():
    return nn.Sequential(nn.Linear(3, 3), snn.Leaky(0.9, init_hidden=True))


NETS = {
    "loop": (Looped, {"fc": LATE, "lif.recurrent": LATE, "lif": dk.TimeConstants("membrane")}, torch.ones(4, 2, 3)),
    "follow": (leaky, {"0": LATE, "1": dk.Recurrent(LATE)}, torch.ones(2, 3)),
    "carried": (
        lambda: norse.SequentialState(nn.Linear(3, 3), norse.LIFRecurrentCell(3, 3)),
        {"0": LATE, "1.recurrent": LATE, "1.input": LATE}, torch.ones(2, 3),
    ),
}  # fmt: skip


def interrupted_at(line, act):
    """Raise KeyboardInterrupt at one of the lines of delaykit that ``act`` comes by; tell whether it came so far."""
    left = [line]

    def trace(frame, event, _):
        if "delaykit" not in frame.f_code.co_filename:
            return None
        if event == "line":
            left[0] -= 1
            if left[0] == 0:
                raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        act()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return False


@pytest.mark.slow
@pytest.mark.parametrize("name", NETS)
def test_an_unwrapping_that_is_interrupted_goes_on(name):
    build, rules, example = NETS[name]
    net = build()
    kinds, keys = [type(module) for module in net.modules()], list(net.state_dict())
    dk.wrap_(net, rules, example=example)
    line = 1
    while interrupted_at(line, lambda: dk.unwrap_(net)):
        if wrapping_of(net) is not None:
            dk.unwrap_(net)
        assert [type(module) for module in net.modules()] == kinds and list(net.state_dict()) == keys
        dk.wrap_(net, rules, example=example)
        line += 7
    assert line > 20
