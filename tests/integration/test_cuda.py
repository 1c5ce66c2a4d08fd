"""A wrapped model on a GPU computes what it computes on the CPU, gradients included; skipped where there is no GPU."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import delaykit as dk

snn = pytest.importorskip("snntorch", reason="the model is a snnTorch model")
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.lif1 = nn.Linear(12, 16), snn.RLeaky(beta=0.8, linear_features=16)
        self.fc2, self.lif2 = nn.Linear(16, 5), snn.Leaky(beta=0.9, reset_mechanism="none")

    def forward(self, x: Tensor) -> Tensor:
        (spk, mem), out = self.lif1.reset_mem(), self.lif2.reset_mem()
        membranes = []
        for step in x:
            spk, mem = self.lif1(self.fc1(step), spk, mem)
            _, out = self.lif2(self.fc2(spk), out)
            membranes.append(out)
        return torch.stack(membranes)


def wrapped(granularity: str, spread: float) -> tuple[Net, Tensor]:
    torch.manual_seed(0)
    net = Net().double()
    with torch.no_grad():
        net.fc1.weight *= 3
    spikes = (torch.rand(30, 4, 12) < 0.3).double()
    kernel = "triangle" if spread else "linear"
    delay = dk.FreeDelay(granularity, max_delay=7, kernel=kernel, spread=spread)  # type: ignore[arg-type]
    return dk.wrap_(net, {"*": delay}, example=spikes), spikes


@pytest.mark.parametrize("granularity", ["layer", "axonal", "dendritic", "synaptic"])
@pytest.mark.parametrize("spread", [0.0, 6.0])
def test_step_mode_equals_cpu(granularity: str, spread: float) -> None:
    results = []
    for device in ("cpu", "cuda"):
        net, spikes = wrapped(granularity, spread)
        net, spikes = net.to(device), spikes.to(device)
        output = net(spikes)
        output.pow(2).mean().backward()
        assert all(p.grad is not None for p in net.parameters())
        results.append([output.detach().cpu(), *(p.grad.cpu() for p in net.parameters() if p.grad is not None)])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(theirs, ours, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("granularity", ["axonal", "dendritic", "synaptic"])
def test_rollout_equals_cpu(granularity: str) -> None:
    results = []
    for device in ("cpu", "cuda"):
        net, _ = wrapped(granularity, 0.0)
        drive = torch.randn(30, 4, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
        net, drive = net.to(device), drive.to(device)
        spikes, membrane = dk.rollout(net.lif1, drive)
        (spikes.sum() + membrane.pow(2).mean()).backward()
        grads = [p.grad.cpu() for p in net.lif1.parameters() if p.grad is not None]
        results.append([spikes.detach().cpu(), membrane.detach().cpu(), *grads])
    assert len(results[0]) >= 5
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(theirs, ours, rtol=1e-9, atol=1e-10)
