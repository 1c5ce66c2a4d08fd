"""Synaptic operations are counted as neurobench counts them, whose package only this test asks for."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from delaykit_lab.models.networks import ModelSpec, Network
from delaykit_lab.training.costs import costs

pytest.importorskip("neurobench", reason="neurobench is not installed")


class Stepwise(nn.Module):
    """The same network step by step, which calls each connection with its spikes: (batch, time, channel) in."""

    def __init__(self, net: Network) -> None:
        super().__init__()
        self.net = net

    def forward(self, spikes: torch.Tensor) -> torch.Tensor:
        net, scores = self.net, 0.0
        fired = [spikes.new_zeros(len(spikes), getattr(net, f"fc{k}").out_features) for k in range(1, net.depth + 1)]
        membranes = [torch.zeros_like(one) for one in fired]
        for now in spikes.unbind(1):
            for k in range(net.depth):
                neuron = getattr(net, f"lif{k + 1}")
                current = getattr(net, f"fc{k + 1}")(now) + neuron.recurrent(fired[k])
                reset = fired[k] * neuron.threshold
                membranes[k] = neuron.beta * membranes[k] + current - reset
                fired[k] = (membranes[k] > neuron.threshold).float()
                now = fired[k]
            scores = scores + net.out(now) - net.out.bias  # once, in the network
        return scores + net.out.bias


def test_operations_are_neurobench_s_effective_accumulates() -> None:
    from neurobench.metrics.workload import SynapticOperations
    from neurobench.models import TorchModel

    torch.manual_seed(0)
    net = Network(6, ModelSpec.parse("rsnn:8,5"), 3)
    with torch.no_grad():  # zeros of pruned weights cost nothing
        net.fc1.weight[:, ::2] = 0.0
        net.lif1.recurrent.weight[torch.rand(8, 8) < 0.5] = 0.0
    spikes = (torch.rand(20, 4, 6) < 0.4).float() * torch.randint(1, 4, (20, 4, 6))  # bins of several spikes, too
    found, wanted = costs(net, spikes), net(spikes)
    model, metric = TorchModel(Stepwise(net)), SynapticOperations()
    model.register_hooks()
    batch = spikes.transpose(0, 1)
    scores = model(batch)
    assert torch.allclose(scores, wanted, atol=1e-5)
    counted = metric(model, scores, (batch, torch.zeros(4)))
    model.cleanup_hooks()
    assert found.spikes > 10
    assert counted["Effective_ACs"] + counted["Effective_MACs"] == found.synaptic_operations  # of counts over 1: MACs
