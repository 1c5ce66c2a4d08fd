"""Another tensor put into a weight (``weight.data = ...``): a graph keeps what it was made with, or is refused."""

from __future__ import annotations

import pytest
import torch
from rigs import Loop, late, leaky, ones
from torch import nn

import delaykit as dk

GRANULARITIES = ["layer", "axonal", "dendritic", "synaptic"]


def replace(module):
    module.weight.data = 2 * module.weight.data


def vector(module):
    numbers = nn.utils.parameters_to_vector([module.weight]).detach()
    nn.utils.vector_to_parameters(2 * numbers, [module.weight])


def gradients(out, x, net):
    named = {name: p for name, p in net.named_parameters() if p.requires_grad}
    found = torch.autograd.grad(out, [x, *named.values()], allow_unused=True)
    return dict(zip(["x", *named], found, strict=True))


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("change", [replace, vector])
@pytest.mark.parametrize("learn", [True, False], ids=["learned", "fixed"])
@pytest.mark.parametrize("time", [3, None], ids=["within the run", "before the backward pass"])
def test_steps_refuse_the_backward_pass(granularity, change, learn, time):
    net = Loop()
    dk.wrap_(net, {"fc": late(1.0, granularity, learn=learn)}, example=torch.zeros(6, 1, 1))
    x = torch.ones(6, 1, 1, requires_grad=True)

    def between(net, t, mem):
        if t == time:
            change(net.fc)
        return mem

    with pytest.raises(dk.HistoryError, match="weight"):
        out = net(x, between)
        if time is None:
            change(net.fc)
        out[-1].sum().backward()


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("backend", ["reference", "torch", None])
@pytest.mark.parametrize("learn", [True, False], ids=["learned", "fixed"])
@pytest.mark.parametrize("start", [0.0, 1.0, 1.5])
def test_whole_sequences_keep_the_weight_that_they_were_made_with(granularity, backend, learn, start):
    net = nn.Sequential(nn.Linear(3, 2))
    dk.wrap_(net, {"0": dk.At(late(start, granularity, learn=learn), time_dim=0, reset="root")})
    x = torch.rand(6, 2, 3, dtype=torch.float32).requires_grad_()
    with dk.backend(backend) if backend else torch.enable_grad():
        want = gradients(net(x).square().sum(), x, net)
        out = net(x).square().sum()
        replace(net[0])
        got = gradients(out, x, net)
    torch.testing.assert_close(got, want)
    assert want["x"].any()


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_a_rollout_keeps_it_too(granularity):
    neuron = leaky(0.9)
    neuron.threshold = torch.tensor(0.4)
    net = nn.Sequential(neuron)
    recurrent = dk.Recurrent(late(1.0, granularity), weight=torch.full((2, 2), 0.3))
    dk.wrap_(net, {"0": recurrent}, example=torch.rand(1, 2))
    x = torch.rand(6, 2, 2).requires_grad_()
    want = gradients(dk.rollout(net[0], x)[1].sum(), x, net)
    out = dk.rollout(net[0], x)[1].sum()
    weight = next(p for name, p in net.named_parameters() if name.endswith("weight"))
    weight.data = 2 * weight.data
    torch.testing.assert_close(gradients(out, x, net), want)
    assert want["x"].any()


def test_what_is_written_in_place_between_forward_and_backward_is_refused_as_ever():
    net = nn.Sequential(ones())
    dk.wrap_(net, {"0": dk.At(late(1.0), time_dim=0, reset="root")})
    x = torch.rand(6, 1, 1).requires_grad_()
    out = net(x).sum()
    with torch.no_grad():
        net[0].weight.mul_(2.0)
    with pytest.raises(RuntimeError, match="inplace|in place"):
        out.backward()
