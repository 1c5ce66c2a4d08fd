"""Delays of weak use fall to 0 and stay; the synapses stay."""

from __future__ import annotations

import pytest
import torch

import delaykit as dk
from delaykit_sparsify import DelayPruning, DynamicSparsity, compact_


def net_of(granularity, pruning, seed=0, **options):
    torch.manual_seed(seed)
    net = torch.nn.Sequential(torch.nn.Linear(5, 4))
    delay = dk.FreeDelay(granularity, max_delay=9, low=1.0, **options)
    return dk.wrap_(net, {"0": dk.At(delay, pruning, reset="manual")}, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("granularity", "dims"), [("synaptic", ()), ("axonal", (0,)), ("dendritic", (1,))])
def test_those_of_the_strongest_use_are_left(granularity, dims):
    net = net_of(granularity, DelayPruning(0.4))
    delays, weight = dk.status(net).delays["0"], net[0].weight.detach().clone()
    use = weight.abs()
    for dim in dims:
        use = use.sum(dim, keepdim=True)
    wanted = (use * delays).flatten().topk(-(-2 * delays.numel() // 5)).indices
    report = dk.advance_(net, 1.0)["0"]
    left = dk.status(net).delays["0"].flatten()
    assert set(left.nonzero().flatten().tolist()) == set(wanted.tolist())
    assert torch.equal(left[wanted], delays.flatten()[wanted]) and torch.equal(net[0].weight, weight)
    assert (report.total, report.kept, report.pruned) == (left.numel(), len(wanted), left.numel() - len(wanted))


@pytest.mark.parametrize(("per", "dim"), [("pre", 0), ("post", 1)])
def test_those_of_a_neuron_fall_together(per, dim):
    net = net_of("synaptic", DelayPruning(0.5, per=per))
    delays = dk.status(net).delays["0"]
    use = (net[0].weight.abs() * delays).sum(dim)
    dk.advance_(net, 0.2)
    some = dk.status(net).delays["0"]
    report = dk.advance_(net, 1.0)["0"]
    left = dk.status(net).delays["0"]
    kept = -(-len(use) // 2)
    assert set((left != 0).any(dim).nonzero().flatten().tolist()) == set(use.topk(kept).indices.tolist())
    assert torch.equal(left[left != 0], delays[left != 0]) and bool((some[left != 0] != 0).all())
    assert (report.total, report.kept) == (20, int((left != 0).sum())) and report.kept == kept * (20 // len(use))


@pytest.mark.parametrize(("granularity", "per"), [("axonal", "pre"), ("axonal", "post"), ("dendritic", "pre")])
def test_neurons_whose_delays_are_one_already_are_refused(granularity, per):
    with pytest.raises(dk.WrapError, match="per='delay'"):
        net_of(granularity, DelayPruning(0.5, per=per))


def test_pruned_channels_of_a_convolution_in_groups():
    torch.manual_seed(0)
    for per in ("pre", "post"):
        net = torch.nn.Sequential(torch.nn.Conv1d(4, 6, 3, groups=2))
        rules = {"0": dk.At(dk.FreeDelay("synaptic", max_delay=9, low=1.0), DelayPruning(0.5, per=per), reset="manual")}
        if per == "pre":  # columns of the delays are channels of several groups
            with pytest.raises(dk.WrapError, match="per='delay'"):
                dk.wrap_(net, rules)
            continue
        dk.wrap_(net, rules)
        dk.advance_(net, 1.0)
        assert (dk.status(net).delays["0"] != 0).all(1).sum() == 3


def test_compaction_uses_it():
    size, found = [], []
    for more in ((), (DelayPruning(0.05),)):  # of all delays: a fourth of those of the kept synapses
        torch.manual_seed(0)
        net = torch.nn.Sequential(torch.nn.Linear(30, 30)).double()
        delay = dk.FreeDelay("synaptic", max_delay=9, low=1.0)
        rule = dk.At(delay, DynamicSparsity(0.8), *more, reset="root", time_dim=0)
        dk.wrap_(net, {"0": rule}, generator=torch.Generator().manual_seed(0))
        dk.advance_(net, 1.0)
        x = (torch.rand(20, 3, 30, generator=torch.Generator().manual_seed(1)) < 0.3).double()
        wanted = net(x).detach()
        dk.reset(net)
        size.append(compact_(net).connections[0].compact_bytes)
        torch.testing.assert_close(net(x), wanted)
        found.append(wanted)
    assert size[1] < 0.75 * size[0] and not torch.equal(*found)  # one arrival a spike where two steps shared it


def test_they_stay_while_the_others_learn():
    net = net_of("synaptic", DelayPruning(0.3))
    optimizer = torch.optim.Adam(dk.param_groups(net, lr=0.01, delay_lr=0.3))
    dk.attach(optimizer, net)
    dk.advance_(net, 0.1)
    first = dk.status(net).delays["0"] == 0
    for epoch in range(6):
        for _ in range(3):
            optimizer.zero_grad()
            dk.reset(net)
            sum(net(torch.rand(2, 5)).square().sum() for _ in range(12)).backward()
            optimizer.step()
            assert bool((dk.status(net).delays["0"][first] == 0).all())
        dk.advance_(net, (epoch + 1) / 6)
        now = dk.status(net).delays["0"] == 0
        assert bool((now | ~first).all())
        first = now
    assert int((~first).sum()) <= 6 and int(torch.count_nonzero(net[0].weight)) == 20


def test_random_is_another_choice_and_the_same_again():
    left = []
    for seed in (1, 1, 2):
        net = net_of("synaptic", DelayPruning(0.3, by="random"))
        net[0].dk.prunings[0]._seed = seed
        dk.advance_(net, 1.0)
        left.append(dk.status(net).delays["0"] != 0)
    assert torch.equal(left[0], left[1]) and not torch.equal(left[0], left[2])


def test_a_checkpoint_goes_on(tmp_path):
    net = net_of("synaptic", DelayPruning(0.3))
    dk.advance_(net, 0.1)
    dk.save(net, tmp_path / "run")
    twin = net_of("synaptic", DelayPruning(0.3), seed=4)
    dk.load(twin, tmp_path / "run")
    assert torch.equal(twin[0].dk.prunings[0].active, net[0].dk.prunings[0].active)
    assert torch.equal(dk.status(twin).delays["0"], dk.status(net).delays["0"])


@pytest.mark.parametrize("granularity", ["layer", None])
def test_refused_where_there_are_no_delays_to_choose_from(granularity):
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(5, 4))
    parts = [DelayPruning()] if granularity is None else [dk.FreeDelay(granularity), DelayPruning()]
    with pytest.raises(dk.WrapError, match="FreeDelay"):
        dk.wrap_(net, {"0": dk.At(*parts, reset="manual")})


@pytest.mark.parametrize("options", [{"kept": 1.0}, {"kept": -0.1}, {"by": "luck"}, {"ramp": 0.0}, {"per": "net"}])
def test_bad_values(options):
    with pytest.raises(dk.ConfigError, match=next(iter(options))):
        DelayPruning(**options)
