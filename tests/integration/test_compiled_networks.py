"""torch.compile of whole wrapped networks: what it gives is what the network gives by itself."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import delaykit as dk

snn = pytest.importorskip("snntorch", reason="compiles snnTorch networks")


class Net(nn.Module):
    """Two layers with two different surrogates, stepped or layer by layer."""

    def __init__(self, sequence: bool) -> None:
        super().__init__()
        surrogate = snn.surrogate
        self.sequence = sequence
        self.fc1, self.fc2 = nn.Linear(6, 8), nn.Linear(8, 5)
        self.lif1 = snn.Leaky(beta=0.9, spike_grad=surrogate.atan())
        self.lif2 = snn.Leaky(beta=0.8, spike_grad=surrogate.fast_sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        if self.sequence:
            spikes, _ = dk.rollout(self.lif1, self.fc1(x))
            return dk.rollout(self.lif2, self.fc2(spikes))[1]
        first, second = self.lif1.reset_mem(), self.lif2.reset_mem()
        membranes = []
        for step in x:
            spikes, first = self.lif1(self.fc1(step), first)
            _, second = self.lif2(self.fc2(spikes), second)
            membranes.append(second)
        return torch.stack(membranes)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
# Whole sequences of synaptic delays are left out: dynamo traces into the view of a weight as an array, and fails.
@pytest.mark.parametrize(("sequence", "granularity"), [(True, "axonal"), (False, "axonal"), (False, "synaptic")])
def test_two_surrogates_in_one_compiled_network(sequence: bool, granularity: str) -> None:
    torch.manual_seed(0)
    x = (torch.rand(6, 3, 6) < 0.5).float()
    delay = dk.FreeDelay(granularity, max_delay=3)  # type: ignore[arg-type]
    net = dk.wrap(Net(sequence), {"fc*": dk.At(delay, time_dim=0, reset="root") if sequence else delay}, example=x)
    torch._dynamo.reset()
    found = []
    for run in (net, torch.compile(net, backend="aot_eager")):
        dk.reset(net)
        net.zero_grad()
        out = run(x)
        out.square().sum().backward()
        found.append([out, *(p.grad for p in net.parameters())])
    assert float(found[0][0].detach().abs().max()) > 0.1
    torch.testing.assert_close(found[1], found[0])
