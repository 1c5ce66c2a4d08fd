"""Errors that were loud but wrong: they now work, or give the true reason and advice that can be followed."""

from __future__ import annotations

import abc
import copy
from typing import Generic, TypeVar

import pytest
import torch
from rigs import Loop, arrivals, currents, late, leaky, looped, outer, snn, spikes
from torch import nn

import delaykit as dk
from delaykit.attaching.retyping import become_


class SAM(torch.optim.Optimizer):
    """Sharpness-aware: climb to a trial point, take the gradient there, come back, step."""

    def __init__(self, params, rho):
        super().__init__(params, {"rho": rho})

    def step(self, closure):
        with torch.enable_grad():
            closure()
        places = [(p, p.detach().clone()) for g in self.param_groups for p in g["params"] if p.grad is not None]
        with torch.no_grad():
            for p, _ in places:
                p.add_(self.param_groups[0]["rho"] * p.grad.sign())
        with torch.enable_grad():
            loss = closure()
        with torch.no_grad():
            for p, old in places:
                p.copy_(old - 0.01 * p.grad)
        return loss


@pytest.mark.parametrize("start", [0.0, 5.0])
def test_sam_at_the_bounds(start):
    """A trial point outside the bounds is projected before forward; no error that asks for dk.attach."""
    net = looped(start)
    optimizer = SAM(list(net.parameters()), 0.5)
    dk.attach(optimizer, net)
    target = 3.0

    def closure():
        optimizer.zero_grad()
        loss = (torch.stack(net(spikes(9, 1, batch=2))).sum() - target).square()
        loss.backward()
        return loss

    for _ in range(4):
        optimizer.step(closure)
    delay = net.fc.dk.delay.delay
    assert bool(((delay >= 0) & (delay <= 5)).all())


@pytest.mark.parametrize("start", [0.0, 5.0])
def test_lbfgs_at_the_bounds(start):
    net = looped(start)
    optimizer = torch.optim.LBFGS(list(net.parameters()), lr=1.0, max_iter=5, line_search_fn="strong_wolfe")
    dk.attach(optimizer, net)

    def closure():
        optimizer.zero_grad()
        loss = (torch.stack(net(spikes(9, 1, batch=2))).sum() - 3.0).square()
        loss.backward()
        return loss

    for _ in range(2):
        optimizer.step(closure)
    delay = net.fc.dk.delay.delay
    assert bool(((delay >= 0) & (delay <= 5)).all())


def test_a_delay_outside_its_bounds_without_attach_still_says_attach():
    net = looped(2)
    with torch.no_grad():
        net.fc.dk.delay.delay.fill_(9.0)
    with pytest.raises(dk.DelayRangeError, match="attach"):
        net(spikes(4, batch=2))


T = TypeVar("T")


class Interface(abc.ABC):
    @abc.abstractmethod
    def name(self): ...


@pytest.mark.parametrize("first", ["abc", "generic"])
def test_a_root_whose_first_base_is_abstract_or_generic(first):
    if first == "abc":

        class Net(Interface, Loop):
            def name(self):
                return "mine"
    else:

        class Net(Generic[T], Loop):
            pass

    net = Net()
    dk.wrap_(net, {"fc": late(3)}, example=spikes(6))
    assert isinstance(net, Net)
    with torch.no_grad(), currents(net.fc) as seen:  # with a graph in its membranes no bare snnTorch net can be copied
        net(spikes(6, 1))
    assert arrivals(seen) == {4: 1.0}
    assert isinstance(copy.deepcopy(net), Net)
    assert type(dk.unwrap_(net)) is Net


def test_a_connection_whose_first_base_is_abstract():
    class Named(Interface, nn.Linear):
        def name(self):
            return "fc"

    net = nn.Sequential(Named(1, 1, bias=False), leaky(init_hidden=True))
    nn.init.ones_(net[0].weight)
    dk.wrap_(net, {"0": late(2)}, example=torch.zeros(1, 1))
    net[1].reset_mem()
    with currents(net[0]) as seen:
        for step in spikes(4, 0):
            net(step)
    assert arrivals(seen) == {2: 1.0}


def test_a_norse_readout_behind_the_loop_gets_the_true_reason():
    norse = pytest.importorskip("norse.torch", reason="wraps norse models")

    class Readout(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.lif, self.head, self.li = nn.Linear(1, 2), norse.LIFCell(), nn.Linear(2, 1), norse.LICell()

        def forward(self, x):
            state, total = None, 0.0
            for step in x:
                z, state = self.lif(self.fc(step), state)
                total = total + z
            return self.li(self.head(total))[0]

    with pytest.raises(dk.WrapError, match="outside the time loop") as caught:
        dk.wrap_(Readout(), {"head": late(2)}, example=spikes(6))
    assert "manual" not in str(caught.value)


def test_the_plan_leaves_parameters_that_forward_changes():
    class Clamped(Loop):
        def __init__(self):
            super().__init__()
            self.lif = snn.Leaky(0.9, threshold=7.0, learn_threshold=True)

        def forward(self, x):
            self.lif.threshold.data.clamp_(0.1, 2.0)
            self.fc.weight.data.mul_(0.5)
            return super().forward(x)

    net = Clamped()
    dk.plan(net, {"fc": late(2)}, example=spikes(4))
    assert float(net.lif.threshold) == 7.0 and float(net.fc.weight) == 1.0


@pytest.mark.parametrize("kind", ["axonal", "dendritic", "synaptic"])
@pytest.mark.parametrize("d", [0, 1.5])
def test_cpu_autocast_gives_what_the_bare_layer_gives(kind, d):
    """Delays stay float32 within; what comes out is of the dtype that autocast asks for, the same at every delay."""
    net = nn.Sequential(nn.Linear(2, 2), leaky(init_hidden=True))
    dk.wrap_(net, {"0": late(d, kind)}, example=torch.zeros(1, 2))
    seen = []
    net[0].register_forward_hook(lambda _, __, output: seen.append(output.dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for _ in range(3):
            net(torch.ones(1, 2))
    assert set(seen) == {torch.float32}


def test_unwrapping_takes_the_optimizers_hook_away():
    """``dk.attach`` hung a hook into the optimizer: it goes with the wrapping."""
    sparsify = pytest.importorskip("delaykit_sparsify", reason="needs a pruning that acts at every step")
    net = nn.Sequential(nn.Linear(20, 20), leaky(init_hidden=True))
    dk.wrap_(net, {"0": (late(2), sparsify.DynamicSparsity(0.5, regrow="none"))}, example=torch.zeros(1, 20))
    optimizer = torch.optim.SGD(dk.param_groups(net, lr=0.1))
    dk.attach(optimizer, net)
    dk.advance_(net, 1.0)
    dk.unwrap_(net)
    with torch.no_grad():
        net[0].weight.fill_(1.0)
    net(torch.ones(1, 20)).sum()
    net[0].weight.grad = torch.zeros_like(net[0].weight)
    optimizer.step()
    assert bool((net[0].weight == 1.0).all())
    assert not optimizer._optimizer_step_post_hooks


def test_attach_can_still_be_removed_by_hand():
    net = outer(5.0)
    optimizer = torch.optim.SGD(net.parameters(), lr=1.0)
    handle = dk.attach(optimizer, net)
    handle.remove()
    dk.unwrap_(net)


def test_closures_see_projected_places_whoever_passes_them():
    """By keyword, too; the caller's closure itself is left alone, and what it returns is returned."""
    net = outer(5.0)
    optimizer = torch.optim.LBFGS(net.parameters(), lr=1.0, max_iter=2)
    dk.attach(optimizer, net)
    delay = net[0].dk.delay.delay
    with torch.no_grad():
        delay.fill_(9.0)

    def closure():
        assert float(delay.detach().max()) <= 5.0
        optimizer.zero_grad()
        loss = (delay - 7.0).square().sum()
        loss.backward()
        return loss

    assert float(optimizer.step(closure=closure)) == 4.0
    assert float(delay.detach().max()) == 5.0


def test_two_optimizers_are_attached_one_after_the_other():
    """Delays in one, weights in the other: the delays' is attached first, and both go with unwrap_."""
    net = outer(5.0)
    groups = {g["name"]: g["params"] for g in dk.param_groups(net, lr=0.1)}
    weights, delays = (torch.optim.SGD(groups[name], lr=0.1) for name in ("model", "delaykit"))
    with pytest.raises(dk.DelaykitError, match="no group"):
        dk.attach(weights, net)
    dk.attach(delays, net)
    dk.attach(weights, net)
    dk.unwrap_(net)
    for optimizer in (weights, delays):
        assert not optimizer._optimizer_step_post_hooks and not optimizer._optimizer_step_pre_hooks


def test_a_copy_is_not_unwrapped_from_the_original_s_optimizer():
    net = outer(5.0)
    optimizer = torch.optim.SGD(net.parameters(), lr=1.0)
    dk.attach(optimizer, net)
    dk.unwrap_(copy.deepcopy(net))
    delay = net[0].dk.delay.delay
    delay.grad = torch.full_like(delay, -3.0)
    optimizer.step()
    assert float(delay.detach()) == 5.0


def test_one_optimizer_for_two_models_goes_on_with_the_other():
    nets = nn.ModuleList([outer(5.0), outer(5.0)])
    optimizer = torch.optim.SGD(nets.parameters(), lr=1.0)
    dk.attach(optimizer, nets)
    dk.unwrap_(nets[0])
    delay = nets[1][0].dk.delay.delay
    delay.grad = torch.full_like(delay, -3.0)
    optimizer.step()
    assert float(delay.detach()) == 5.0


def test_the_plan_puts_back_parameters_whose_data_was_replaced():
    class Replaced(Loop):
        def forward(self, x):
            self.fc.weight.data = torch.zeros(2, 1)
            return super().forward(x)

    net = Replaced()
    weight = net.fc.weight
    version = weight._version
    dk.plan(net, {"fc": late(2)}, example=spikes(4))
    assert net.fc.weight is weight and weight.tolist() == [[1.0]] and weight._version == version


def test_a_class_that_no_object_can_leave_is_named():
    """Not the example is at fault."""
    with pytest.raises(dk.ConfigError, match="Identity.*lets no object change"):
        become_(nn.Identity(), int)
