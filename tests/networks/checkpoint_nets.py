"""The model of the checkpoint tests: one of every granularity, and a recurrent connection that delaykit made."""

from __future__ import annotations

import hand
import snntorch as snn
import torch
from hand import HIDDEN, POST, PRE
from torch import nn

import delaykit as dk


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.rlif = nn.Linear(PRE, HIDDEN), snn.RLeaky(beta=0.8, linear_features=HIDDEN)
        self.fc2, self.lif2 = nn.Linear(HIDDEN, POST), snn.Leaky(beta=0.8)

    def forward(self, x):
        (spk1, mem1), mem2, out = self.rlif.reset_mem(), self.lif2.reset_mem(), []
        for step in x:
            spk1, mem1 = self.rlif(self.fc1(step), spk1, mem1)
            _, mem2 = self.lif2(self.fc2(spk1), mem2)
            out.append(mem2)
        return torch.stack(out)


RULES = {
    "fc1": dk.FreeDelay("axonal", kernel="triangle", spread=2.0, spread_decay=0.9),
    "fc2": dk.FreeDelay("synaptic", max_delay=7),
    "rlif.recurrent": dk.FreeDelay("dendritic", learn=False),
    "lif2": dk.Recurrent(dk.FreeDelay("layer"), bias=True),
}


def example():
    return hand.spikes_in(rate=0.6).float()


def delayed():
    net = dk.wrap_(Net(), RULES, example=example())
    dk.advance_(net, 0.05)
    return net
