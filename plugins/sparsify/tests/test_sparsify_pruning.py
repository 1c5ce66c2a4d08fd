"""Exact counts, ties, schedules, regrowth, moments, copies: what a step of pruning does and what it leaves alone."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import delaykit as dk
from delaykit_sparsify import DynamicSparsity, Sparsifier, masks, turnover


def pruning(config, post=8, pre=10, recurrent=False):
    return config.build(dk.Site("here", pre, post, recurrent=recurrent), torch.Generator().manual_seed(0))


def weights(post=8, pre=10, seed=1):
    return torch.randn(post, pre, generator=torch.Generator().manual_seed(seed))


def trained(config, delay=None, lr=0.1):
    net = nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 3))
    parts = (config,) if delay is None else (delay, config)
    dk.wrap_(net, {"0": dk.At(*parts, reset="root", time_dim=0)})
    optimizer = torch.optim.Adam(dk.param_groups(net, lr=lr))
    dk.attach(optimizer, net)
    return net, optimizer


def one_step(net, optimizer, seed=3):
    optimizer.zero_grad()
    net(torch.randn(5, 4, 6, generator=torch.Generator().manual_seed(seed))).square().sum().backward()
    optimizer.step()


@given(
    sparsity=st.floats(0, 0.999), values=st.lists(st.sampled_from([-2.0, -1.0, 1.0, 2.0]), min_size=1, max_size=40)
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_count_is_exact_and_the_weakest_go_whatever_the_ties(sparsity, values):
    weight = torch.tensor([values])
    before = weight.clone()
    report = pruning(DynamicSparsity(sparsity), 1, len(values)).step_(weight, 1.0)
    kept = len(values) - int(sparsity * len(values) + 1e-6)
    assert int((weight != 0).sum()) == kept == report.kept
    if 0 < kept < len(values):
        assert before[weight != 0].abs().min() >= before[weight == 0].abs().max()


def test_all_equal_weights_keep_the_first_ones():
    weight = torch.ones(4, 5)
    pruning(DynamicSparsity(0.9), 4, 5).step_(weight, 0.3)
    assert weight.flatten().nonzero().flatten().tolist() == [0, 1]


@pytest.mark.parametrize(
    ("schedule", "ramp", "wanted"),
    [("constant", 1.0, (0.9, 0.9, 0.9)), ("linear", 0.5, (0.45, 0.9, 0.9)), ("once", 1.0, (0.0, 0.0, 0.9)),
     ("cubic", 1.0, (0.9 * (1 - 0.75**3), 0.9 * (1 - 0.5**3), 0.9))],
)  # fmt: skip
def test_schedules_at_a_quarter_a_half_and_the_end(schedule, ramp, wanted):
    config = DynamicSparsity(0.9, schedule=schedule, ramp=ramp)
    assert [config.at(p) for p in (0.25, 0.5, 1.0)] == pytest.approx(list(wanted))


def test_published_ramp_is_a_tenth_an_epoch():
    epochs, target = 40, 0.9
    config = DynamicSparsity(target, schedule="linear", ramp=10 * target / epochs)
    for epoch in range(epochs + 1):
        assert 1 - config.at(epoch / epochs) == pytest.approx(max(1 - target, 1 - 0.1 * epoch))


@pytest.mark.parametrize(
    "wrong",
    [{"sparsity": 1.0}, {"sparsity": -0.1}, {"sparsity": True}, {"sparsity": float("nan")}, {"ramp": 0.0},
     {"drop": 1.0}, {"schedule": "fast"}, {"regrow": "yes"}, {"moments": 3}, {"loses": "all"},
     {"scope": "global", "regrow": "random"}],
)  # fmt: skip
def test_wrong_configs_say_so(wrong):
    with pytest.raises(dk.ConfigError, match="DynamicSparsity"):
        DynamicSparsity(**wrong)


def test_nan_weights_are_refused():
    weight = weights()
    weight[0, 0] = torch.nan
    with pytest.raises(dk.DelayRangeError, match="NaN"):
        pruning(DynamicSparsity(0.5)).step_(weight, 1.0)


def test_global_scope_ranks_all_weights_together():
    net = nn.Sequential(nn.Linear(10, 10), nn.Linear(10, 10))
    with torch.no_grad():
        net[0].weight.copy_(1 + torch.arange(100.0).view(10, 10))
        net[1].weight.copy_(50.5 + torch.arange(100.0).view(10, 10))
    report = Sparsifier(net, DynamicSparsity(0.5, scope="global"), exclude=()).step_(1.0)
    both = torch.cat([net[0].weight, net[1].weight])
    assert int((both != 0).sum()) == 100 and both[both != 0].min() > 75
    assert report["0.weight"].kept == 25 and report["1.weight"].kept == 75


def test_isolated_neurons_are_reported():
    weight = torch.ones(4, 5)
    weight[2] *= 0.01
    assert pruning(DynamicSparsity(0.5), 4, 5).step_(weight, 1.0).isolated == 2  # the third by size, the last by ties


def test_autapses_that_the_library_masked_do_not_count():
    weight = weights(10, 10).fill_diagonal_(0)
    report = pruning(DynamicSparsity(0.5), 10, 10, recurrent=True).step_(weight, 1.0)
    assert (report.total, report.kept) == (90, 45) and not weight.diagonal().any()
    grower = pruning(DynamicSparsity(0.5, regrow="random"), 10, 10, recurrent=True)
    weight = weights(10, 10).fill_diagonal_(0)
    for progress in (0.1, 0.2, 0.3, 0.4):
        grower.step_(weight, progress)
        assert not grower.active.diagonal().any()


def test_norse_recurrent_cell_keeps_its_autapses_at_zero():
    norse = pytest.importorskip("norse.torch", reason="needs Norse, the extra `norse`")
    cell = norse.LIFRecurrentCell(4, 10)
    report = Sparsifier(cell, DynamicSparsity(0.5), exclude=()).step_(1.0)
    assert report["recurrent_weights"].total == 90 and report["recurrent_weights"].kept == 45
    assert report["input_weights"].kept == 20


def test_free_regrowth_zeros_learn_and_can_come_back():
    torch.manual_seed(0)
    net, optimizer = trained(DynamicSparsity(0.5), lr=0.5)
    dk.advance_(net, 0.1)
    before = masks(net)
    one_step(net, optimizer)
    assert int((net[0].weight == 0).sum()) == 0  # every zero moved
    report = dk.advance_(net, 0.2)["0"]
    change = turnover(before, masks(net))["0"]
    assert report.regrown == change.created > 0 and report.pruned == change.removed == report.regrown
    assert report.kept == 36


@pytest.mark.parametrize("regrow", ["none", "random", "gradient"])
def test_other_regrowth_keeps_zeros_after_each_optimizer_step(regrow):
    torch.manual_seed(0)
    net, optimizer = trained(DynamicSparsity(0.5, regrow=regrow))
    for progress in (0.1, 0.2, 0.3):
        dk.advance_(net, progress)
        active = net[0].dk.prunings[0].active.clone()
        assert int(active.sum()) == 36
        one_step(net, optimizer)
        assert torch.equal(net[0].weight != 0, active)  # what is active moved off zero, what is not stayed


def test_no_regrowth_only_ever_loses():
    torch.manual_seed(0)
    net, optimizer = trained(DynamicSparsity(0.8, schedule="linear", regrow="none"))
    last = torch.ones(12, 6, dtype=torch.bool)
    for progress in (0.25, 0.5, 0.75, 1.0):
        report = dk.advance_(net, progress)["0"]
        assert report.regrown == 0 and not bool((masks(net)["0"] & ~last).any())
        last = masks(net)["0"]
        one_step(net, optimizer)
    assert int(last.sum()) == 72 - 57


def test_random_regrowth_replaces_the_weakest_and_rests_at_the_end():
    net, optimizer = trained(DynamicSparsity(0.5, regrow="random", drop=0.25))
    dk.advance_(net, 0.1)
    one_step(net, optimizer)
    strong = net[0].weight.detach().abs().flatten().topk(27).indices
    dk.advance_(net, 0.2)
    active = net[0].dk.prunings[0].active
    assert bool(active.flatten()[strong].all()) and int(active.sum()) == 36
    assert int((net[0].weight != 0).sum()) == 27  # nine grow from zero
    one_step(net, optimizer)
    assert int((net[0].weight != 0).sum()) == 36
    assert dk.advance_(net, 1.0)["0"].regrown == 0


def test_gradient_regrowth_grows_where_the_gradient_is_steepest():
    weight = weights().requires_grad_()
    rigl = pruning(DynamicSparsity(0.5, regrow="gradient", drop=0.2))
    rigl.step_(weight, 0.0)
    gone = weight.detach() == 0
    weight.grad = torch.zeros_like(weight)
    wanted = gone.flatten().nonzero().flatten()[[3, 7, 11, 20]]
    weight.grad.view(-1)[wanted] = torch.tensor([9.0, -8.0, 7.0, 6.0])
    rigl.step_(weight, 0.5)  # cosine: half of 0.2 of 40
    assert int(rigl.active.sum()) == 40
    assert set((rigl.active & gone).flatten().nonzero().flatten().tolist()) == set(wanted.tolist())
    again = copy.deepcopy(rigl)
    again.step_(weight, 1.0)
    assert int(again.active.sum()) == 40


def test_gradient_regrowth_without_gradients_says_when_to_call():
    rigl, weight = pruning(DynamicSparsity(0.5, regrow="gradient")), weights()
    rigl.step_(weight, 0.0)
    with pytest.raises(dk.TrainingError, match="zero_grad"):
        rigl.step_(weight, 0.5)


@pytest.mark.parametrize("moments", ["keep", "reset"])
def test_moments_of_pruned_synapses(moments):
    torch.manual_seed(0)
    net, optimizer = trained(DynamicSparsity(0.5, moments=moments))
    one_step(net, optimizer)
    dk.advance_(net, 0.5)
    gone = net[0].weight.detach() == 0
    for name in ("exp_avg", "exp_avg_sq"):
        moment = optimizer.state[net[0].weight][name]
        assert bool(moment[gone].any()) == (moments == "keep") and bool(moment[~gone].all())


def test_reset_moments_without_optimizer_says_so():
    with pytest.raises(dk.TrainingError, match="attach"):
        pruning(DynamicSparsity(0.5, moments="reset")).step_(weights(), 1.0)


def test_a_pruned_synapse_may_lose_its_delay():
    torch.manual_seed(0)
    delay = dk.FreeDelay("synaptic", max_delay=9, init="uniform", low=1.0)
    for loses in ("weight", "delay"):
        net, _ = trained(DynamicSparsity(0.5, loses=loses), delay)
        dk.advance_(net, 1.0)
        assert torch.equal(net[0].dk.delay.delay != 0, net[0].weight != 0) == (loses == "delay")
    with pytest.raises(dk.WrapError, match="synaptic"):
        trained(DynamicSparsity(0.5, loses="delay"), dk.FreeDelay("axonal"))


def test_static_pruning_waits_for_the_end():
    net, _ = trained(DynamicSparsity(0.9, schedule="once"))
    assert dk.advance_(net, 0.99)["0"].kept == 72 and dk.advance_(net, 1.0)["0"].kept == 72 - 64


def test_copies_and_pickles_prune_on_their_own():
    torch.manual_seed(0)
    net, optimizer = trained(DynamicSparsity(0.5, moments="reset"), dk.FreeDelay("synaptic", max_delay=4))
    one_step(net, optimizer)
    dk.advance_(net, 0.5)
    frozen = net[0].weight.detach().clone()
    for twin in (copy.deepcopy(net), pickle.loads(pickle.dumps(net[0]))):
        part = twin[0] if isinstance(twin, nn.Sequential) else twin
        with pytest.raises(dk.TrainingError):  # it does not reach for the optimizer of the original
            part.dk.prunings[0].step_(part.weight, 1.0)
        assert torch.equal(part.dk.prunings[0].active, net[0].dk.prunings[0].active)
    assert torch.equal(net[0].weight, frozen)


def test_sparsifier_takes_plain_layers_and_leaves_the_readout():
    net = nn.Sequential(nn.Conv2d(2, 6, 3), nn.Flatten(), nn.Linear(24, 20), nn.Linear(20, 5))
    reports = Sparsifier(net, DynamicSparsity(0.75)).step_(1.0)
    assert {name: report.kept for name, report in reports.items()} == {"0.weight": 27, "2.weight": 120}
    assert bool((net[3].weight != 0).all())
    assert list(Sparsifier(net, DynamicSparsity(), exclude=("0.*", "readout")).weights) == ["2.weight"]
    with pytest.raises(dk.UnknownNameError, match=r"fc\*"):
        Sparsifier(net, DynamicSparsity(), include=["fc*"])


def test_sparsifier_prunes_parameters_inside_a_synapse():
    net, _ = trained(DynamicSparsity(0.0), dk.FreeDelay("synaptic", max_delay=9))
    report = Sparsifier(net, DynamicSparsity(0.5), include=["*.dk.delay.delay"]).step_(1.0)
    assert report["0.dk.delay.delay"].kept == 36 and int((net[0].dk.delay.delay == 0).sum()) == 36


def test_status_tells_kept_weights():
    net, _ = trained(DynamicSparsity(0.9))
    dk.advance_(net, 1.0)
    site = dk.status(net).sites[0]
    assert (site.kept, site.weights) == (8, 72) and "8/72" in str(dk.status(net))
