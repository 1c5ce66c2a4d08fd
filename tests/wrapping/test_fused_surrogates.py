"""A surrogate with a parameter that learns: its neuron runs by its own steps, whose gradients reach the parameter."""

from __future__ import annotations

import snntorch as snn
import torch
from fused_cases import HIDDEN, TwoLayers, ahead_in, assert_equal_runs, gradients, loud, spikes
from torch import Tensor, nn

import delaykit as dk


class LearnedSlope(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(3.0, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        soft = torch.sigmoid(self.slope * x)
        return (x > 0).to(x) + (soft - soft.detach())


def neuron(**options: object) -> nn.Module:
    return snn.Leaky(beta=0.8, threshold=0.5, spike_grad=LearnedSlope(), **options).double()


class Learned(TwoLayers):
    def __init__(self) -> None:
        super().__init__()
        self.lif1 = neuron()


def test_it_runs_step_by_step_between_layers_that_run_ahead():
    net = loud(Learned())
    dk.wrap_(net, {"fc*": dk.FreeDelay("axonal", max_delay=3, init="uniform")}, example=spikes())
    fast = dk.fused(net, example=spikes())
    assert ahead_in(fast) == {"fc1"}, str(fast)
    x = spikes()
    assert_equal_runs(net, fast, fast.step_by_step, x)
    net.lif1.spike_grad.slope.grad = None
    fast(x)[0].sum().backward()
    assert net.lif1.spike_grad.slope.grad.abs() > 0


def test_a_rollout_of_it_is_its_own_loop():
    lif, current = neuron(), spikes(8, 3, HIDDEN)
    mem, steps = lif.reset_mem(), []
    for step in current:
        spk, mem = lif(step, mem)
        steps.append(spk)
    wanted, reached = gradients(lif, torch.stack(steps), [current])
    found, back = gradients(lif, dk.rollout(lif, current)[0], [current])
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)
    torch.testing.assert_close(back, reached, rtol=1e-12, atol=1e-12)
    assert any(one is not None and one.dim() == 0 and one.abs() > 0 for one in back)


def test_one_that_was_frozen_runs_ahead():
    net = loud(Learned())
    net.lif1.spike_grad.requires_grad_(False)
    fast = dk.fused(net, example=spikes())
    assert "lif1" in ahead_in(fast), str(fast)
    assert_equal_runs(net, fast, fast.step_by_step, spikes())
