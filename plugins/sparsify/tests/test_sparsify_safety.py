"""Pruning that went wrong says so, changes nothing, and outlives copies, casts and checkpoints."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

import delaykit as dk
from delaykit_sparsify import DynamicSparsity, Sparsifier


def net_of(config):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 10), nn.Tanh(), nn.Linear(10, 3))
    return dk.wrap_(net, {"0": dk.At(config, reset="root", time_dim=0)})


def one_step(net, optimizer):
    optimizer.zero_grad()
    net(torch.randn(5, 4, 8, generator=torch.Generator().manual_seed(3))).square().sum().backward()
    optimizer.step()


@pytest.mark.parametrize("scope", ["matrix", "global"])
def test_a_nan_anywhere_leaves_all_weights_alone(scope):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 10), nn.Linear(10, 10))
    with torch.no_grad():
        net[1].weight[0, 0] = torch.nan
    before = net[0].weight.detach().clone()
    with pytest.raises(dk.DelayRangeError, match=r"1\.weight"):
        Sparsifier(net, DynamicSparsity(0.5, scope=scope), exclude=()).step_(1.0)
    assert torch.equal(net[0].weight, before)


def test_a_connection_without_a_weight_cannot_be_pruned():
    snn = pytest.importorskip("snntorch", reason="needs snnTorch, the extra `snntorch`")
    net = nn.Sequential(snn.RLeaky(beta=0.8, all_to_all=False, V=torch.rand(12), init_hidden=True))
    rule = dk.At(dk.FreeDelay("axonal"), DynamicSparsity(0.5), reset="follow")
    with pytest.raises(dk.WrapError, match="without a weight"):
        dk.wrap_(net, {"0.recurrent": rule}, example=lambda: net(torch.rand(2, 12)))
    net = nn.Sequential(snn.RLeaky(beta=0.8, conv2d_channels=3, kernel_size=3, init_hidden=True))
    dk.wrap_(net, {"0.recurrent": rule}, example=lambda: net(torch.rand(2, 3, 8, 8)))
    assert dk.advance_(net, 1.0)["0.recurrent"].kept == 41  # of 81


@pytest.mark.parametrize("regrow", ["none", "random", "gradient"])
def test_zeros_that_nobody_keeps_are_noticed(regrow):
    net = net_of(DynamicSparsity(0.5, regrow=regrow))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    dk.advance_(net, 0.1)
    one_step(net, optimizer)
    with pytest.raises(dk.TrainingError, match="attach"):
        dk.advance_(net, 0.2)
    with pytest.raises(dk.ConfigError, match="optimizer"):
        Sparsifier(net, DynamicSparsity(0.5, regrow=regrow))


@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-2),
        lambda p: torch.optim.Adam(p, lr=0.1, amsgrad=True),
        lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.9),
    ],
)
def test_momentum_brings_no_pruned_synapse_back(make):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 10), nn.Tanh(), nn.Linear(10, 3))
    optimizer = make(net.parameters())
    sparsifier = Sparsifier(net, DynamicSparsity(0.6, regrow="none"), optimizer=optimizer)
    for _ in range(3):
        one_step(net, optimizer)
    sparsifier.step_(0.5)
    zero = net[0].weight.detach() == 0
    for _ in range(3):
        one_step(net, optimizer)
        assert torch.equal(net[0].weight.detach() == 0, zero) and int(zero.sum()) == 48


@pytest.mark.parametrize("change", ["assign", "copy", "half", "double"])
def test_the_weights_are_those_that_the_model_has_now(change):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 10), nn.Linear(10, 3))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    sparsifier = Sparsifier(net, DynamicSparsity(0.5, regrow="none"), optimizer=optimizer)
    sparsifier.step_(0.1)
    zero = net[0].weight.detach() == 0
    state = {name: value.clone() for name, value in net.state_dict().items()}
    net.load_state_dict(state, assign=change == "assign")
    net = {"half": net.half, "double": net.double}.get(change, lambda: net)()
    sparsifier.step_(0.2)
    assert torch.equal(net[0].weight == 0, zero) and sparsifier.weights["0.weight"] is net[0].weight


def test_model_and_sparsifier_are_copied_together():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 10), nn.Linear(10, 3))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    pair = net, Sparsifier(net, DynamicSparsity(0.5, regrow="random"), optimizer=optimizer)
    pair[1].step_(0.3)
    before = net[0].weight.detach().clone()
    twins = copy.deepcopy(pair), pickle.loads(pickle.dumps(pair))
    for twin, sparsifier in twins:
        assert sparsifier.step_(0.6)["0.weight"].regrown > 0
        assert int(sparsifier.prunings["0.weight"].active.sum()) == 40 and not torch.equal(twin[0].weight, before)
    assert torch.equal(twins[0][0][0].weight, twins[1][0][0].weight) and torch.equal(net[0].weight, before)


def test_autapses_lost_by_chance_may_come_back_after_a_checkpoint():
    weight = torch.rand(10, 10, generator=torch.Generator().manual_seed(0)) + 0.1
    weight.fill_diagonal_(0.01)
    config, site = DynamicSparsity(0.8, regrow="random", drop=0.5), dk.Site("here", 10, 10, recurrent=True)
    first = config.build(site, torch.Generator().manual_seed(0))
    assert first.step_(weight, 0.5).total == 100 and not weight.diagonal().any()
    second, twin = config.build(site), weight.clone()
    second.load_state_(first.state())
    back = False
    for progress in (0.6, 0.7, 0.8, 0.9):
        assert first.step_(weight, progress) == second.step_(twin, progress)
        assert torch.equal(first.active, second.active)
        back = back or bool(first.active.diagonal().any())
    assert back
