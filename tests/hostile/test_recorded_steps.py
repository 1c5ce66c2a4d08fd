"""Steps under ``no_grad`` among recorded ones: the gradient is that of a queue, which keeps what it was given.

A step that is not recorded is a constant for all later ones: for spikes where the line delays spikes, for currents, and
so for the weight that made them, where it delays currents.
"""

from __future__ import annotations

import pytest
import torch
from queue_reference import Line
from rigs import leaky
from torch import nn

import delaykit as dk

RECORDED = {
    "warm-up": [0, 0, 0, 1, 1, 1, 1, 1],
    "gap": [1, 1, 0, 1, 1, 0, 1, 1],
    "gap at the end of a delay": [1, 0, 0, 0, 1, 1, 1, 1],
    "every second": [0, 1, 0, 1, 0, 1, 0, 1],
}
DELAYS = {"layer": 1.4, "axonal": [2.0, 0.7], "dendritic": [1.0, 2.6], "synaptic": [[2.0, 1.3], [0.4, 3.0]]}


def gradients(net, x, recorded):
    net[1].reset_mem()
    x, loss = x.clone().requires_grad_(), 0.0
    for t, on in enumerate(recorded):
        with torch.set_grad_enabled(bool(on)):
            net(x[t])
        if on:
            loss = loss + (t + 1) * net[1].mem.square().sum()
    return [loss.detach(), *torch.autograd.grad(loss, [x, net[0].weight, net[0].bias])]


@pytest.mark.parametrize("pattern", RECORDED)
@pytest.mark.parametrize("kind", DELAYS)
def test_gradients_are_those_of_a_queue(kind, pattern):
    torch.manual_seed(0)
    nets = [nn.Sequential(nn.Linear(2, 2), leaky(init_hidden=True)).double() for _ in range(2)]
    nets[1][0].load_state_dict(nets[0][0].state_dict())
    x = torch.rand(8, 3, 2, dtype=torch.float64)
    Line(nets[1][0], torch.tensor(DELAYS[kind], dtype=torch.float64), kind)
    rule = dk.FreeDelay(kind, max_delay=4, init=DELAYS[kind])
    dk.wrap_(nets[0], {"0": rule}, example=torch.zeros(3, 2, dtype=torch.float64))
    with torch.no_grad():
        nets[0][0].dk.delay.delay.copy_(torch.tensor(DELAYS[kind], dtype=torch.float64))
    wanted, got = gradients(nets[1], x, RECORDED[pattern]), gradients(nets[0], x, RECORDED[pattern])
    torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-10)


def learned(net, x, recorded, off):
    net[1].reset_mem()
    loss = 0.0
    for t, on in enumerate(recorded):
        with torch.enable_grad() if on else off():
            net(x[t])
        if on:
            loss = loss + (t + 1) * net[1].mem.square().sum()
        elif off is torch.inference_mode:
            net[1].mem = net[1].mem.clone()  # a tensor of inference mode takes part in no graph
    return [loss.detach(), *torch.autograd.grad(loss, list(net.parameters()))]


@pytest.mark.parametrize("pattern", RECORDED)
@pytest.mark.parametrize("kind", DELAYS)
def test_inference_mode_is_no_grad(kind, pattern):
    """Also for delays, which were read first in a step that recorded nothing and can record nothing."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(2, 2), leaky(init_hidden=True)).double()
    rule = dk.FreeDelay(kind, max_delay=4, init=DELAYS[kind])
    dk.wrap_(net, {"0": rule}, example=torch.zeros(3, 2, dtype=torch.float64))
    x = torch.rand(8, 3, 2, dtype=torch.float64)
    want, got = (learned(net, x, RECORDED[pattern], off) for off in (torch.no_grad, torch.inference_mode))
    torch.testing.assert_close(got, want)
    assert all(bool(one.any()) for one in got)
