"""snnTorch networks that several tests wrap."""

from __future__ import annotations

import pytest
import torch
from hand import HIDDEN, POST, PRE, spike
from torch import nn

snn = pytest.importorskip("snntorch", reason="wraps snntorch models")
from snntorch import utils  # noqa: E402


def leaky(**more):
    return snn.Leaky(**{"beta": 0.8, "spike_grad": spike, **more})


def hidden(**more):
    return leaky(init_hidden=True, **more)


def sequential():
    return nn.Sequential(nn.Linear(PRE, HIDDEN), hidden(), nn.Linear(HIDDEN, POST), hidden())


def outer_loop(net, x):
    utils.reset(net)
    return torch.stack([net(step) for step in x])


def call(net, x):
    return net(x)


class Net(nn.Module):
    """The tutorial's network: two Linears, two Leakys, the loop in forward."""

    def __init__(self):
        super().__init__()
        self.fc1, self.lif1 = nn.Linear(PRE, HIDDEN), leaky()
        self.fc2, self.lif2 = nn.Linear(HIDDEN, POST), leaky()


class ResetMem(Net):
    def forward(self, x):
        mem1, mem2 = self.lif1.reset_mem(), self.lif2.reset_mem()
        out = []
        for step in x:
            spk1, mem1 = self.lif1(self.fc1(step), mem1)
            spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
            out.append(spk2 + mem2)
        return torch.stack(out, dim=0)


TWO = {"fc1": "axonal", "fc2": "axonal"}
