"""An interrupted sparse training goes on as if it had not been interrupted."""

from __future__ import annotations

import copy
import random

import pytest
import torch
from torch import nn

import delaykit as dk
from delaykit.testing.stored_checkpoints import rewrite_checkpoint
from delaykit_sparsify import DynamicSparsity

EPOCHS = 6


def fresh(regrow):
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 3))
    rule = dk.At(dk.FreeDelay("synaptic", max_delay=3), DynamicSparsity(0.7, regrow=regrow), reset="root", time_dim=0)
    return dk.wrap_(net, {"0": rule}, generator=torch.Generator().manual_seed(5))


def train(net, first, last):
    optimizer = torch.optim.SGD(dk.param_groups(net, lr=0.02))
    dk.attach(optimizer, net)
    for epoch in range(first, last):
        for batch in range(2):
            optimizer.zero_grad()
            x = torch.randn(5, 4, 6, generator=torch.Generator().manual_seed(10 * epoch + batch))
            net(x).square().mean().backward()
            optimizer.step()
        dk.advance_(net, (epoch + 1) / EPOCHS)
    return net


@pytest.mark.parametrize("regrow", ["free", "none", "random", "gradient"])
def test_resumed_training_equals_an_uninterrupted_one(regrow, tmp_path):
    whole = train(fresh(regrow), 0, EPOCHS)
    half = train(fresh(regrow), 0, 3)
    dk.save(half, tmp_path / "half")
    rest = fresh(regrow)
    rest.load_state_dict(half.state_dict())
    rest = dk.load(rest, tmp_path / "half")
    train(rest, 3, EPOCHS)
    assert torch.equal(rest[0].weight, whole[0].weight)
    assert int(whole[0].dk.prunings[0].active.sum()) == 22  # of 72, 70 % gone


def test_a_bare_model_gets_its_mask_with_its_delays(tmp_path):
    half = train(fresh("none"), 0, 3)
    dk.save(half, tmp_path / "half")
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 3))
    with torch.no_grad():
        net[0].weight.copy_(half[0].weight)
    dk.load(net, tmp_path / "half")
    zero = net[0].weight == 0
    train(net, 3, 4)
    assert bool((net[0].weight[zero] == 0).all()) and bool(zero.any())


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda t: t.update({"#pruning/0/active/0": torch.ones(2, 2, dtype=torch.bool)}), r"shape \(2, 2\)"),
        (lambda t: t.update({"#pruning/0/progress/0": torch.tensor(7.0, dtype=torch.float64)}), "damaged memory"),
        (lambda t: t.pop("#pruning/0/seed/0"), "damaged memory"),
        (lambda t: t.update({"#pruning/3/active/0": torch.ones(12, 6, dtype=torch.bool)}), "#pruning/3"),
        (lambda t: t.update({"#pruning/x": torch.ones(1)}), "#pruning/x"),
        (lambda t: t.update({"#pruning/0/active/elsewhere": torch.ones(1)}), "elsewhere"),
    ],
)
def test_a_damaged_memory_changes_nothing(change, found, tmp_path):
    dk.save(train(fresh("random"), 0, 3), tmp_path / "half")
    rewrite_checkpoint(tmp_path / "half", lambda plan, tensors: change(tensors))
    net = train(fresh("random"), 0, 2)
    before = [net[0].dk.delay.delays().clone(), *net[0].dk.prunings[0].state().values()]
    with pytest.raises(dk.CheckpointError, match=found):
        dk.load(net, tmp_path / "half")
    after = [net[0].dk.delay.delays(), *net[0].dk.prunings[0].state().values()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def resumed(regrow, epochs=3):
    """Train, stop; go on from state_dict and the optimizer's state alone, as most people do."""

    def optimizer_of(net):
        optimizer = torch.optim.Adam(dk.param_groups(net, lr=0.02))
        dk.attach(optimizer, net)
        return optimizer

    def step(net, optimizer):
        optimizer.zero_grad()
        x = torch.randn(5, 4, 6, generator=torch.Generator().manual_seed(0))
        net(x).square().mean().backward()
        optimizer.step()

    net = fresh(regrow)
    optimizer = optimizer_of(net)
    for epoch in range(epochs):
        step(net, optimizer)
        dk.advance_(net, (epoch + 1) / EPOCHS)
    twin = fresh(regrow)
    other = optimizer_of(twin)
    twin.load_state_dict(net.state_dict())
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))  # as from a file: else they share it
    step(net, optimizer), step(twin, other)
    return net, twin


@pytest.mark.parametrize("regrow", ["none", "random", "gradient", "free"])
def test_a_run_resumed_from_state_dict_alone_keeps_its_mask(regrow):
    """With regrow="none" the mask is saved state; with "free" there is none, and the next step fills in either way."""
    net, twin = resumed(regrow)
    assert torch.equal(twin[0].weight == 0, net[0].weight == 0)
    assert torch.equal(twin[0].weight, net[0].weight)


def test_two_optimizers_and_the_one_that_holds_the_weight():
    """Moments are reset in the optimizer of the weight, whichever was attached last."""
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 3))
    rule = dk.At(dk.FreeDelay("axonal", max_delay=3), DynamicSparsity(0.7, moments="reset"), reset="root", time_dim=0)
    dk.wrap_(net, {"0": rule})
    own, delays = dk.param_groups(net, lr=0.02)
    one, two = torch.optim.Adam([own]), torch.optim.SGD([delays])
    with pytest.raises(dk.TrainingError, match="0.weight"):
        dk.attach(two, net)  # nobody could reset the moments of a weight that another optimizer holds
    dk.attach([one, two], net)
    net(torch.randn(5, 4, 6)).square().mean().backward()
    one.step(), two.step()
    dk.advance_(net, 1.0)
    moments = one.state[net[0].weight]["exp_avg"]
    assert bool((moments[net[0].weight == 0] == 0).all()) and bool(moments.any())


LIBRARIES = ("snntorch", "norse")
SPLITS = ("one", "weights and delays", "three")


def library_net(library, component, granularity):
    """A net that fires, both its kinds of connections pruned."""
    torch.manual_seed(1)
    parts = [(dk.FreeDelay(granularity, max_delay=3, init=1.5), component)] * 2
    if library == "snntorch":
        snn = pytest.importorskip("snntorch", reason="trains a snntorch net")
        neuron = snn.RLeaky(0.8, linear_features=12, init_hidden=True, output=True)
        net, sites = nn.Sequential(nn.Linear(6, 12), neuron), ("0", "1.recurrent")
    else:
        norse = pytest.importorskip("norse.torch", reason="trains a norse net")
        net, sites = norse.SequentialState(nn.Linear(6, 12), norse.LIFRecurrentCell(12, 12)), ("0", "1.recurrent")
    example = (lambda: net(torch.zeros(2, 6))) if library == "snntorch" else (lambda: net(torch.zeros(2, 6), None))
    rules = dict(zip(sites, parts, strict=True))
    return dk.wrap_(net, rules, example=example, generator=torch.Generator().manual_seed(5))


def optimizers(net, split, swapped):
    weights, delays = dk.param_groups(net, lr=0.02)
    first, rest = weights["params"][:1], weights["params"][1:]
    made = {
        "one": lambda: [torch.optim.Adam([weights, delays])],
        "weights and delays": lambda: [torch.optim.Adam([weights]), torch.optim.SGD([delays], momentum=0.5)],
        "three": lambda: [
            torch.optim.Adam([{**weights, "params": first}]),
            torch.optim.SGD([{**weights, "params": rest}], momentum=0.9),
            torch.optim.SGD([delays], momentum=0.5),
        ],
    }[split]()
    dk.attach(made[::-1] if swapped else made, net)
    return made


def one_step(net, made, seed):
    for optimizer in made:
        optimizer.zero_grad()
    x, state, loss = 3 * (torch.rand(6, 4, 6, generator=torch.Generator().manual_seed(seed)) < 0.5).float(), None, 0.0
    if isinstance(net, nn.Sequential) and hasattr(net[1], "reset_mem"):
        net[1].reset_mem()
    for step in x:
        y, state = net(step) if hasattr(net[1], "reset_mem") else net(step, state)
        loss = loss + (state if isinstance(state, torch.Tensor) else y).square().mean()
    loss.backward()
    for optimizer in made:
        optimizer.step()


def interrupted(seed, stop):
    """Train; at step ``stop`` go on in a new model from state_dict and the optimizers' states."""
    r = random.Random(seed)
    regrow, library, split = r.choice(["free", "none", "random", "gradient"]), r.choice(LIBRARIES), r.choice(SPLITS)
    component = DynamicSparsity(0.7, regrow=regrow, moments=r.choice(["keep", "reset"]))
    granularity, swapped = r.choice(["axonal", "synaptic", "dendritic"]), r.random() < 0.5
    net = library_net(library, component, granularity)
    made = optimizers(net, split, swapped)
    for n in range(6):
        one_step(net, made, n)
        if n == stop:
            twin = library_net(library, component, granularity)
            others = optimizers(twin, split, swapped)
            twin.load_state_dict(copy.deepcopy(net.state_dict()))
            for new, old in zip(others, made, strict=True):
                new.load_state_dict(copy.deepcopy(old.state_dict()))
            for new, old in zip(twin.parameters(), net.parameters(), strict=True):
                new.grad = None if old.grad is None else old.grad.clone()
            net, made = twin, others
        if n % 2:
            dk.advance_(net, (n + 1) / 6)
    return net


@pytest.mark.parametrize("seed", range(8))
def test_a_run_resumed_anywhere_is_the_uninterrupted_one(seed):
    """Both libraries, one to three optimizers in either order, stopped within an epoch or at its end."""
    want = interrupted(seed, None).state_dict()
    for stop in (1 + seed % 2, 4 - seed % 2):
        got = interrupted(seed, stop).state_dict()
        assert all(torch.equal(got[key], value) for key, value in want.items()), stop
    weight = want["0.weight"]
    assert float((weight != 0).float().mean()) < 0.35
