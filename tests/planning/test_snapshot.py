"""A snapshot gives a model back as it was: values, attributes, containers and random generators."""

from __future__ import annotations

import random

import numpy as np
import torch
from torch import nn

from delaykit.planning.snapshot import Snapshot


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))
        self.register_buffer("mean", torch.zeros(2))
        self.calls, self.seen, self.known = 0, [1], {"a": 1}

    def forward(self) -> None:
        self.calls += 1
        self.seen.append(2)
        self.known["b"] = 2
        self.mean += 1
        self.weight.data = torch.full((2,), 7.0)
        self.extra = torch.rand(1), random.random(), np.random.rand()
        self.train(False)


def test_everything_is_given_back_and_nothing_is_another_object() -> None:
    net = Counting()
    weight, seen, version = net.weight, net.seen, net.mean._version
    snapshot = Snapshot(net)
    drawn = torch.rand(1), random.random(), np.random.rand()
    snapshot.restore()
    net()
    assert snapshot.weights_changed()
    snapshot.restore()
    assert not snapshot.weights_changed()
    assert net.weight is weight and weight.tolist() == [1.0, 1.0] and net.mean.tolist() == [0.0, 0.0]
    assert net.seen is seen == [1] and net.known == {"a": 1} and net.calls == 0 and net.training
    assert not hasattr(net, "extra") and net.mean._version == version + 1  # what the run did; no write of its own
    assert (torch.rand(1), random.random(), np.random.rand()) == drawn
