"""snnTorch models whose Linear sees a whole sequence at once, or serves two names or two streams."""

from __future__ import annotations

import hand
import pytest
import torch
from hand import HIDDEN, POST, PRE
from torch import nn

snn = pytest.importorskip("snntorch", reason="wraps snntorch models")
from snntorch_nets import Net, call, leaky  # noqa: E402


class LinearThenLoop(Net):
    """The Linear sees the whole sequence (time first), the loop is over the neuron only."""

    def forward(self, x):
        currents, mem1, mem2, out = self.fc1(x), self.lif1.reset_mem(), self.lif2.reset_mem(), []
        for current in currents:
            spk1, mem1 = self.lif1(current, mem1)
            _, mem2 = self.lif2(self.fc2(spk1), mem2)
            out.append(mem2)
        return torch.stack(out)


class BatchFirstLinearThenLoop(Net):
    def forward(self, x):
        currents, mem1, mem2, out = self.fc1(x.transpose(0, 1)), self.lif1.reset_mem(), self.lif2.reset_mem(), []
        for t in range(currents.shape[1]):
            spk1, mem1 = self.lif1(currents[:, t], mem1)
            _, mem2 = self.lif2(self.fc2(spk1), mem2)
            out.append(mem2)
        return torch.stack(out)


class AllCurrentsFirst(Net):
    """Layer by layer: each Linear and each neuron runs over the whole sequence before the next one."""

    def forward(self, x):
        for fc, lif in ((self.fc1, self.lif1), (self.fc2, self.lif2)):
            mem, spikes = lif.reset_mem(), []
            for current in fc(x):
                spk, mem = lif(current, mem)
                spikes.append(spk)
            x = torch.stack(spikes)
        return x


SEQUENCES = {
    "time-first": (LinearThenLoop, {"fc1": {"time_dim": 0}}),
    "batch-first": (BatchFirstLinearThenLoop, {"fc1": {"time_dim": 1}}),
    "layer-by-layer": (AllCurrentsFirst, {"fc1": {"time_dim": 0}, "fc2": {"time_dim": 0}}),
}


@pytest.mark.parametrize("which", hand.DELAYS)
@pytest.mark.parametrize("kind", ["axonal", "dendritic", "synaptic"])
@pytest.mark.parametrize("model", SEQUENCES)
def test_layer_over_the_whole_sequence(model, kind, which):
    build, options = SEQUENCES[model]
    net, *_ = hand.check(build, call, {"fc1": kind, "fc2": kind}, which, **options)
    assert net.fc1._dk.sites[""].timing.time_dim == options["fc1"]["time_dim"]


class TwoNames(nn.Module):
    """One Linear under two names, used by one or the other."""

    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(PRE, HIDDEN)
        self.encoder = nn.Sequential(self.fc1)
        self.lif1, self.fc2 = leaky(), nn.Linear(HIDDEN, POST)

    def forward(self, x):
        mem, out = self.lif1.reset_mem(), []
        for step in x:
            spk, mem = self.lif1(self.encoder(step), mem)
            out.append(self.fc2(spk))
        return torch.stack(out)


class Siamese(nn.Module):
    """One Linear called twice a step, for two streams with a neuron each (or one neuron with two states)."""

    def __init__(self, neurons=2):
        super().__init__()
        self.fc = nn.Linear(PRE, HIDDEN)
        self.left = leaky()
        self.right = leaky() if neurons == 2 else self.left

    def forward(self, x):
        mem_l = torch.zeros(x.shape[1], HIDDEN, dtype=x.dtype)
        mem_r = torch.zeros(x.shape[1], HIDDEN, dtype=x.dtype)
        out = []
        for step in x:
            spk_l, mem_l = self.left(self.fc(step), mem_l)
            spk_r, mem_r = self.right(self.fc(step.flip(-1)), mem_r)
            out.append(torch.cat([spk_l + mem_l, spk_r - mem_r], -1))
        return torch.stack(out)


@pytest.mark.parametrize("which", hand.DELAYS)
@pytest.mark.parametrize("site", ["fc1", "encoder.0"])
def test_layer_under_two_names_is_wrapped_once(site, which):
    net, *_ = hand.check(TwoNames, call, {site: "axonal"}, which)
    assert net.fc1 is net.encoder[0] and "dk" in net.fc1._modules
    assert len([p for n, p in net.named_parameters() if ".dk." in n]) == 1


@pytest.mark.parametrize("which", hand.DELAYS)
@pytest.mark.parametrize("kind", ["axonal", "synaptic"])
@pytest.mark.parametrize("neurons", [1, 2])
def test_layer_shared_by_two_streams(neurons, kind, which):
    net, *_ = hand.check(lambda: Siamese(neurons), call, {"fc": kind}, which, fc={"streams": 2})
    assert net.fc._dk.sites[""].timing.streams == 2
